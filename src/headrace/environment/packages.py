"""Where packages come from: pip's own settings, handed to uv, which does not read them by itself."""

import configparser
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse


@dataclass(frozen=True, slots=True)
class PackageSources:
    """What pip is configured with; places on disk that do not exist are left out, as pip passes them over."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    certificates: str = ""
    is_offline: bool = False

    def uv_options(self) -> list[str]:
        """Return the options of `uv pip` that say the same. As with pip, the best version of all indexes wins."""
        options = ["--index-strategy=unsafe-best-match"]
        options += [f"--index-url={self.index_url}"] if self.index_url else []
        options += ["--no-index"] if self.is_offline else []
        options += [f"--extra-index-url={url}" for url in self.extra_index_urls]
        return options + [f"--find-links={place}" for place in self.find_links]


def read_package_sources(variables: Mapping[str, str]) -> PackageSources:
    """Return pip's settings from its configuration files and its `PIP_…` variables, which win."""
    found: dict[str, str] = {}
    for path in configuration_files(variables):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except configparser.Error:
            continue  # pip itself will complain about it; uv's own settings may still do.
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for name, value in variables.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return PackageSources(
        index_url=found.get("index-url", "").strip(),
        extra_index_urls=tuple(filter(is_there, found.get("extra-index-url", "").split())),
        find_links=tuple(filter(is_there, found.get("find-links", "").split())),
        certificates=found.get("cert", "").strip(),
        is_offline=found.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"),
    )


def configuration_files(variables: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files in the order in which later ones win: global, user, site, PIP_CONFIG_FILE."""
    named = variables.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(variables.get("HOME") or Path.home())
    config = Path(variables.get("XDG_CONFIG_HOME") or home / ".config")
    places = [Path(folder) / "pip" / "pip.conf" for folder in variables.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    if sys.platform == "darwin":
        places = [Path("/Library/Application Support/pip/pip.conf")]
        config = home / "Library" / "Application Support" if (home / "Library").is_dir() else config
    places += [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    places += [Path(sys.prefix) / "pip.conf"]
    return [*places, Path(named)] if named else places


def is_there(place: str) -> bool:
    """Tell whether a package source exists, as far as that can be said without the network."""
    if place.startswith("file://"):
        return Path(unquote(urlparse(place).path)).is_dir()
    return "://" in place or Path(place).exists()


def has_gpu(variables: Mapping[str, str]) -> bool:
    """Tell whether this machine has an NVIDIA GPU that programs may use."""
    if variables.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
