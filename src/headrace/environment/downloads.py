"""How large a download will be: what the index says, else what the server answers to HEAD."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from headrace.environment.packages import read_package_sources

TIMEOUT_S = 5.0


def sizes(files: Mapping[str, tuple[str, int]], variables: Mapping[str, str]) -> dict[str, int]:
    """Return the bytes of each named file; 0 where nobody says.

    Args:
        files: name to address and size, 0 where the size is not known yet.
    """
    certificates = read_package_sources(variables).certificates or variables.get("SSL_CERT_FILE")
    context = ssl.create_default_context(cafile=certificates or None)
    unknown = [name for name, (address, size) in files.items() if not size and address.startswith("https://")]
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = dict(zip(unknown, pool.map(lambda name: _asked(files[name][0], context), unknown), strict=True))
    return {name: asked.get(name, size) for name, (_, size) in files.items()}


def _asked(address: str, context: ssl.SSLContext) -> int:
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - https only, checked above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
            return int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError, urllib.error.URLError):
        return 0
