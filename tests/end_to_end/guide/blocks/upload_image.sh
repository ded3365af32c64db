# Upload an image with type override
curl -X POST "http://localhost:8080/v2/models/my-model/infer?inference_type=image" \
  -H "Content-Type: application/octet-stream" \
  --data-binary @image.jpg
