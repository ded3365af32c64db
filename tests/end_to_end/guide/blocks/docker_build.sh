# Build generic inference container
docker build -t modelhub-inference examples/serving/
