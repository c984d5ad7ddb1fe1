# One sealed version in the component's environment, with headrace's server beside it in an environment of its own.
# Run it by itself (`docker run --read-only --tmpfs /tmp -p 8080:8080 IMAGE`), or behind an endpoint of the `docker` target.
ARG BASE
FROM ${BASE}
USER 0:0
RUN python3 -m venv --without-pip /opt/headrace && find /opt/headrace /opt -maxdepth 1 -exec touch -h -d @315532800 {} + \
    && find /opt/headrace -exec touch -h -d @315532800 {} +
COPY headrace/ /opt/headrace/
COPY version/ /opt/version/
USER 10001:10001
# A model that is not the sealed one ends the build here, and the start again.
RUN ["/opt/environment/bin/python", "-I", "/opt/headrace/enter.py", "verify"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["/opt/environment/bin/python", "-I", "/opt/headrace/enter.py", "health"]
ENTRYPOINT ["/opt/environment/bin/python", "-I", "/opt/headrace/enter.py"]
CMD ["serve"]
