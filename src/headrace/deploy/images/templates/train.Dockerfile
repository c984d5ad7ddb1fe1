# The project's code in the component's environment. Data is mounted when it runs, never copied in.
ARG BASE
FROM ${BASE}
COPY project/ /opt/project/
WORKDIR /opt/project
