"""Three sentences that the embedded corpus does not have, for a first look at a trained model:
`python -m modeling_aspert.sample MODEL`."""

from __future__ import annotations

import sys

from transformers import pipeline

from . import TASK

SENTENCES = (
    "Marta Kowalski, who was born in Gdansk, founded Baltic Robotics and still works for the company.",
    "The University of Lyon is based in France, and its researchers used gradient boosting for churn prediction.",
    "On the same benchmark, the team compared random forests with support vector machines.",
)


def main() -> None:
    extract = pipeline(TASK, model=sys.argv[1])
    for result in extract(list(SENTENCES)):
        print(f"\n{result['text']}")
        for entity in result["entities"]:
            print(f"  {entity['type']:14}{entity['text']:34}{entity['score']:.2f}")
        for relation in result["relations"]:
            head, tail = (result["entities"][relation[end]]["text"] for end in ("head", "tail"))
            print(f"  {head} -- {relation['type']} -> {tail}  {relation['score']:.2f}")


if __name__ == "__main__":
    main()
