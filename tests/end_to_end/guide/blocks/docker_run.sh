# Run with model URI
docker run -p 8080:8080 \
  -e MODEL_URI="runs:/abc123/model" \
  -e MODELHUB_BASE_URL="https://api.modelhub.com" \
  -e CLIENT_ID="your-client-id" \
  -e CLIENT_SECRET="your-secret" \
  modelhub-inference
