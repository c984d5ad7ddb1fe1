# TorchServe on the component's locked environment. Models are mounted when it runs, never copied in.
# Java 17 comes with BASE_IMAGE, as a build has no network. Yours may take it from another image, which the engine pulls:
# `COPY --from=eclipse-temurin:17-jre /opt/java/openjdk /opt/java/` and `ENV PATH=/opt/java/bin:$PATH`, before RUN.
ARG BASE
FROM ${BASE}
RUN found="$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')"; \
    test "${found:-0}" -ge 17 || { echo "BASE_IMAGE has no Java 17 (found: ${found:-none})"; exit 1; }
COPY torchserve/ /opt/torchserve/
