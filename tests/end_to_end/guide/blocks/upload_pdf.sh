# Upload a PDF file
curl -X POST http://localhost:8080/v2/models/my-model/infer \
  -H "Content-Type: application/octet-stream" \
  --data-binary @document.pdf
