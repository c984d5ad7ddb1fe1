# The component's locked environment and nothing else: train and serve images both begin with these layers.
# The packages come ready from the build context, checked against the hashes of requirements.lock: the build needs no network,
# no compiler, no package settings and no credentials.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
ARG PYTHON=3.11
RUN python3 -c "import sys; v = '%d.%d' % sys.version_info[:2]; v == '${PYTHON}' or sys.exit('BASE_IMAGE has Python ' + v + ', the environment is locked for ${PYTHON}')" \
    && python3 -m venv --without-pip /opt/environment \
    && find /opt -exec touch -h -d @315532800 {} +
COPY environment/ /opt/environment/
ENV PATH=/opt/environment/bin:$PATH \
    HOME=/tmp USER=headrace PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true HF_HUB_OFFLINE=1
USER 10001:10001
