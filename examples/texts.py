"""Texts through TF-IDF and a linear model: reviews written here, so that nothing is downloaded."""

from contextlib import chdir
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import CsvDestination
from mlinfer.hosts import Selected, SklearnHost
from mlinfer.sources import CsvSource

GOOD, BAD = ["lovely", "great", "superb", "fresh"], ["awful", "cold", "stale", "rude"]
THINGS = ["the soup", "our waiter", "this place", "their coffee"]


def main() -> None:
    texts = [f"{thing} was {word}" for thing, word in product(THINGS, GOOD + BAD)]
    labels = ["good" if text.split()[-1] in GOOD else "bad" for text in texts]
    model = make_pipeline(TfidfVectorizer(), SGDClassifier(random_state=0)).fit(texts, labels)
    mlinfer.save(model, "reviews.mlinfer", example=texts)  # data, no pickle

    Path("in.csv").write_text('id,review\n1,"The coffee was great, really"\n2,stale bread\n3,\n')
    pipeline = InferencePipeline(
        CsvSource("in.csv"),
        Selected(SklearnHost("reviews.mlinfer"), {"opinion": "y_pred"}),
        CsvDestination("out.csv"),
        name="reviews",
        keep=["id", "review"],
        columns={"x": "review"},  # a list of texts has no name: the model calls it x
        rejects=CsvDestination("rejects.csv"),
    )
    print(pipeline.run())  # 2 delivered, 1 rejected, at-least-once
    print(Path("out.csv").read_text().splitlines()[1])  # 1,"The coffee was great, really","good"
    answers = pipeline.infer({"review": ["superb soup", "rude waiter"]})
    print(answers["opinion"].to_pylist())  # ['good', 'bad']


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
