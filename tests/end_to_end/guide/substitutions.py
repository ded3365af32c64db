"""What the guide's code leaves open, and what the tests put there. Nothing else of its blocks is changed."""

from __future__ import annotations

#: In every block. What stands in braces is filled by the test: ids of runs, addresses, files.
EVERYWHERE: dict[str, str] = {
    "autonomize-model-sdk": "modelhub-serving",
    "runs:/abc123def456/model": "{run}",
    "runs:/abc123/model": "{run}",
    "runs:/def456/model": "{other_run}",
    "https://api.modelhub.com": "{modelhub}",
    "https://api-modelhub.example.com": "{modelhub}",
    "your-client-id": "{client_id}",
    "client-id": "{client_id}",
    "your-secret": "{client_secret}",
    "client-secret": "{client_secret}",
    "http://localhost:8080": "{url}",
}

#: In one block: undefined names, and files as base64.
IN_BLOCK: dict[str, dict[str, str]] = {
    "document_processor.py": {
        "return processed_images": "return [_png(image) for image in images]",
        "return formatted_results": "return prediction",
        "def main():": (
            "def _png(image):\n"
            "    import io\n"
            "    if isinstance(image, bytes):\n"
            "        return image\n"
            "    target = io.BytesIO()\n"
            "    image.save(target, 'PNG')\n"
            "    return target.getvalue()\n"
            "\n"
            "def main():"
        ),
    },
    "async_llm_model.py": {
        "from your_async_service": "from fake_llm",
        "from your_utils": "from modelhub.serving",
    },
    "legacy_image.json": {"<binary-data-or-base64>": "{jpeg}"},
    "legacy_images.json": {"<image1-data>": "{jpeg}", "<image2-data>": "{png}"},
    "legacy_pdf.json": {"<binary-pdf-data>": "{pdf}"},
}


def fill(name: str, text: str, **values: str) -> str:
    """A block of the guide with its placeholders filled."""
    for old, new in {**EVERYWHERE, **IN_BLOCK.get(name, {})}.items():
        for key, value in values.items():
            new = new.replace("{" + key + "}", value)
        text = text.replace(old, new)
    return text
