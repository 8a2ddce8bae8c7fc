# One image for the code location, the webserver and the daemon; compose gives each its command.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/app \
    DAGSTER_DISABLE_TELEMETRY=1 \
    DAGSTER_EVENT_BATCH_SIZE=1000 \
    DBT_SEND_ANONYMOUS_USAGE_STATS=false \
    DO_NOT_TRACK=1 \
    METERING_HOME=/app/home \
    METERING_LANDING_URL=/landing

RUN useradd --create-home --uid 10001 metering \
    && mkdir -p /app/home /app/storage /landing \
    && chown -R metering:metering /app

WORKDIR /app

# The packages first: they change less often than the code.
COPY --chown=metering:metering pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir metering_pipeline \
    && pip install --no-cache-dir -c constraints.txt -e .

COPY --chown=metering:metering dagster.yaml workspace.yaml ./
COPY --chown=metering:metering dbt_project ./dbt_project
COPY --chown=metering:metering metering_pipeline ./metering_pipeline

USER 10001
EXPOSE 3000 4000
CMD ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", "-m", "metering_pipeline.definitions"]
