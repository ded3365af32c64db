# Use the pre-built container
FROM your-registry/modelhub-inference:latest

# Or build from examples
FROM python:3.12-slim
RUN pip install autonomize-model-sdk[serving]
COPY generic_serve.py /app/serve.py
CMD ["python", "/app/serve.py"]
