# Use your existing pipeline image
FROM your-model-training-image:latest

# Install ModelHub SDK with appropriate extras
RUN pip install "autonomize-model-sdk[text-serving]"

# Set working directory
WORKDIR /app

# Copy serving code
COPY app /app

# Expose KServe port
EXPOSE 8080

# Set environment variables
ENV PYTHONPATH=/app
ENV PYTHONUNBUFFERED=1

# Run the server
ENTRYPOINT ["python", "app/main.py"]
