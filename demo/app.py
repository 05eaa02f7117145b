"""The demo as a Hugging Face Space, or on this machine: ``ASPERT_MODEL=folder-or-Hub-name python app.py``."""

from __future__ import annotations

import os
import sys

from modeling_aspert import AspertForJointExtraction, AspertProcessor, Extractor
from modeling_aspert.demo import launch

MODEL = os.environ.get("ASPERT_MODEL")
# Hugging Face sets SPACE_ID; there its proxy stands before the app, which must listen on all addresses.
HOST = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
EXAMPLE = "Marta Kowalski was born in Gdansk. She founded Baltic Robotics."

if __name__ == "__main__":
    if not MODEL:
        sys.exit("set the variable ASPERT_MODEL to a model's folder or Hub name (in a Space: Settings, Variables)")
    extractor = Extractor(AspertForJointExtraction.from_pretrained(MODEL), AspertProcessor.from_pretrained(MODEL))
    launch(
        extractor,
        port=int(os.environ.get("PORT", "7860")),
        host=HOST,
        example=os.environ.get("ASPERT_EXAMPLE", EXAMPLE),
    )
