"""A saved model is data: it is there whole or not at all, opened only if every byte is meant, and never run as code."""

import base64
import contextlib
import copy
import functools
import hashlib
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import zipfile

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import uniform
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import mlinfer
from mlinfer import ComponentError, ConfigError
from mlinfer._cli import main
from mlinfer.hosts import SklearnHost
from mlinfer.hosts._package import sealed

X, Y = load_iris(return_X_y=True)
FRAME = load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def knn():
    return KNeighborsClassifier(3).fit(FRAME, Y)


@pytest.fixture
def package(knn, tmp_path):
    return mlinfer.save(knn, tmp_path / "iris.mlinfer", example=FRAME)


def opened(*args, **options):
    with SklearnHost(*args, **options).open() as model:
        return model


def ask(model, records):
    batch = pa.Table.from_pandas(records, preserve_index=False).combine_chunks().to_batches()[0]
    return model.infer(batch).column(0).to_pylist()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def edit_manifest(package, **changes):
    path = package / "manifest.json"
    facts = json.loads(path.read_text()) | changes
    path.write_bytes(sealed({name: value for name, value in facts.items() if name != "sealed"}))


# --- saving ------------------------------------------------------------------------------------------------------------


def test_a_package_answers_as_the_model_that_was_saved(knn, package):
    model = opened(package)
    assert ask(model, FRAME) == knn.predict(FRAME).tolist()
    in_hand = opened(knn, example=FRAME).signature
    assert model.signature.model_id == "iris"
    assert model.signature.inputs.equals(in_hand.inputs, check_metadata=True)
    assert model.signature.outputs.equals(in_hand.outputs, check_metadata=True)
    assert (model.signature.digest, model.signature.version) == (in_hand.digest, in_hand.digest[:12])


def test_a_package_says_what_is_in_it(package):
    assert names(package) == ["manifest.json", "model.skops"]
    facts = json.loads((package / "manifest.json").read_text())
    assert facts["files"] == {"model.skops": sha256(package / "model.skops")}
    assert facts["libraries"].keys() == {"python", "scikit-learn", "numpy", "skops"}
    assert facts["fields"]["outputs"] == [{"name": "y_pred", "type": "int64", "nullable": False}]
    schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(facts["signature"]["inputs"])))
    assert schema.names == list(FRAME)
    assert facts["example"] == FRAME.iloc[0].to_dict()
    assert isinstance(skops.io.load(package / "model.skops", trusted=skops.io.get_untrusted_types(file=package / "model.skops")), KNeighborsClassifier)  # fmt: skip


def test_the_same_model_is_the_same_version_wherever_it_is_saved(knn, package, tmp_path):
    again = mlinfer.save(knn, tmp_path / "again.mlinfer", example=FRAME)
    assert opened(again).signature.digest == opened(package).signature.digest


def test_a_package_is_asked_for_what_it_was_saved_with_unless_told_otherwise(knn, tmp_path):
    path = mlinfer.save(knn, tmp_path / "p", example=FRAME, method=("predict", "predict_proba"), expand=True)
    assert opened(path).signature.outputs.names == ["y_pred", "y_proba_0", "y_proba_1", "y_proba_2"]
    listed = opened(path, method="predict_proba", expand=False)
    assert listed.signature.outputs.names == ["y_proba"]
    np.testing.assert_array_equal(ask(listed, FRAME), knn.predict_proba(FRAME))
    with pytest.raises(ConfigError, match="wanted the method 'transform', found predict, predict_proba"):
        opened(path, method="transform")


def test_an_existing_path_is_never_overwritten(knn, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (taken, dangling):
        with pytest.raises(ConfigError, match="wanted a new path"):
            mlinfer.save(knn, path, example=FRAME)
    assert names(tmp_path) == ["dangling", "taken"]


def test_a_save_that_fails_leaves_nothing_behind(knn, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ComponentError, match=r"p: wanted to write the package, found No space left .*: make room"
    ):
        mlinfer.save(knn, tmp_path / "p", example=FRAME)
    assert names(tmp_path) == []


def test_what_cannot_be_told_apart_from_code_is_not_saved(tmp_path):
    model = make_pipeline(TfidfVectorizer(tokenizer=str.split, token_pattern=None), LinearSVC()).fit(
        ["a", "b"], [0, 1]
    )
    with pytest.raises(ConfigError, match="method_descriptor"):
        mlinfer.save(model, tmp_path / "p", example=["a"])
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 129, "ü"])
def test_a_name_is_a_plain_name(knn, tmp_path, name):
    with pytest.raises(ConfigError, match="name: wanted"):
        mlinfer.save(knn, tmp_path / ("p" if name else ".mlinfer"), example=FRAME, name=name or None)


# --- what estimators need ----------------------------------------------------------------------------------------------

WORDS = pd.DataFrame({"word": ["a", "b", None, "a"] * 10, "number": [1.0, np.nan, 3.0, 4.0] * 10})
FAMILIES = [
    (LogisticRegression(max_iter=500), FRAME),
    (SGDClassifier(random_state=0), FRAME),
    (DecisionTreeClassifier(), FRAME),
    (RandomForestClassifier(3), FRAME),
    (GradientBoostingRegressor(n_estimators=2), FRAME),
    (HistGradientBoostingClassifier(max_iter=2), FRAME),
    (SVC(), FRAME),
    (KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"), FRAME),
    (GaussianNB(), FRAME),
    (
        make_pipeline(StandardScaler(), MLPClassifier((4,), solver="lbfgs", max_iter=500, random_state=0)),
        FRAME,
    ),
    (GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2]}, cv=2, scoring="accuracy"), FRAME),
    (CalibratedClassifierCV(LinearSVC(), cv=2), FRAME),
    (VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())]), FRAME),
    (StackingClassifier([("a", GaussianNB())], final_estimator=DecisionTreeClassifier(), cv=2), FRAME),
    (KMeans(3, n_init=1, random_state=0), FRAME),
    (make_pipeline(KNNImputer(), GaussianNB()), FRAME),
    (
        make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["word"]), (SimpleImputer(), ["number"])
            ),
            GaussianNB(),
        ),
        WORDS,
    ),
]


@pytest.mark.parametrize(("model", "data"), FAMILIES, ids=[type(model).__name__ for model, _ in FAMILIES])
def test_estimators_of_every_family_need_no_trust(model, data, tmp_path):
    model.fit(data, Y[: len(data)] if data is FRAME else [0, 1] * 20)
    path = mlinfer.save(model, tmp_path / "p", example=data)
    assert ask(opened(path), data) == model.predict(data).tolist()


@pytest.mark.parametrize("numbers", [np.number, np.floating, ["floating", np.integer]])
def test_columns_chosen_by_their_kind_need_no_trust(numbers, tmp_path):
    frame = WORDS.assign(word=WORDS.word.astype(object))
    chosen = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
        (SimpleImputer(), make_column_selector(dtype_include=numbers)),
    )
    model = make_pipeline(chosen, LogisticRegression()).fit(frame, [0, 1] * 20)
    path = mlinfer.save(model, tmp_path / "p", example=frame)
    assert ask(opened(path), frame) == model.predict(frame).tolist()


def test_texts_are_saved_too(tmp_path):
    texts = ["good film", "bad film", "so good", "so bad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["up", "down"] * 2)
    path = mlinfer.save(model, tmp_path / "p", example=texts)
    assert (
        opened(path).infer(pa.record_batch({"x": texts})).column(0).to_pylist()
        == model.predict(texts).tolist()
    )


def double(x):
    return 2 * x


def test_a_type_of_ones_own_needs_trust_and_is_named(tmp_path):
    model = make_pipeline(FunctionTransformer(double), KNeighborsClassifier(1)).fit(X, Y)
    named = f"{double.__module__}.double"
    with pytest.raises(ConfigError, match=rf"found {named}; .*write trusted=\['{named}'\]"):
        mlinfer.save(model, tmp_path / "p", example=X)
    path = mlinfer.save(model, tmp_path / "p", example=X, trusted=[named])
    with pytest.raises(ConfigError, match=named):
        opened(path)
    assert opened(path, trusted=[named]).signature.model_id == "p"


def test_distributions_of_scipy_are_not_trusted_because_they_evaluate_text(tmp_path):
    search = RandomizedSearchCV(LogisticRegression(max_iter=500), {"C": uniform(1, 2)}, n_iter=1, cv=2).fit(
        X, Y
    )
    skops.io.dump(search, tmp_path / "m.skops")
    with pytest.raises(ConfigError, match="rv_continuous_frozen"):
        opened(tmp_path / "m.skops", example=X)


# --- opening -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.skops", "manifest.json"])
def test_a_changed_byte_is_found_before_anything_is_loaded(package, name):
    pin = sha256(package / "manifest.json")
    path = package / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="wanted the SHA-256"):
        opened(package, sha256=pin)


def flipped(content, places):
    for place in places:
        yield content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def test_every_flipped_byte_is_found_without_a_pin(package):
    """Every byte of the manifest and of the table of contents of the model's file, and a sample of the rest."""
    manifest, model = package / "manifest.json", package / "model.skops"
    with zipfile.ZipFile(model) as archive:
        beginning = archive.start_dir
    size = model.stat().st_size
    dice = np.random.default_rng(0)
    places = {
        manifest: range(manifest.stat().st_size),
        model: [*range(64), *dice.choice(beginning, 200, replace=False).tolist(), *range(beginning, size)],
    }
    for path, chosen in places.items():
        content = path.read_bytes()
        for damaged in flipped(content, chosen):
            path.write_bytes(damaged)
            with pytest.raises(ConfigError):
                mlinfer.hosts.manifest(package)
        path.write_bytes(content)
    assert mlinfer.hosts.manifest(package)["model_id"] == "iris"


def test_every_byte_of_a_small_package_counts(tmp_path):
    """All of them: of the manifest, of the estimator and of its compiled form."""
    package = mlinfer.save(LinearRegression().fit([[0.0], [1.0]], [1.0, 2.0]), tmp_path / "line.mlinfer")
    files = sorted(package.iterdir())
    assert [file.name for file in files] == ["compiled.arrays", "manifest.json", "model.skops"]
    for file in files:
        content = file.read_bytes()
        with file.open("r+b", buffering=0) as changing:
            for place, byte in enumerate(content):
                os.pwrite(changing.fileno(), bytes([byte ^ 1 << place % 8]), place)
                with pytest.raises(ConfigError):
                    mlinfer.hosts.manifest(package)
                os.pwrite(changing.fileno(), bytes([byte]), place)
    assert mlinfer.hosts.manifest(package)["model_id"] == "line"


def test_a_pinned_package_is_opened(package):
    assert opened(package, sha256=sha256(package / "manifest.json").upper()).signature.model_id == "iris"


def test_a_folder_that_is_no_package_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=rf"{tmp_path}: wanted the folder of a model .*no manifest\.json in it"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["model.skops", "manifest.json"])
def test_a_link_is_not_followed_out_of_the_package(package, tmp_path, name):
    (package / name).rename(tmp_path / "elsewhere")
    (package / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="wanted a model file that can be read"):
        opened(package)


@pytest.mark.parametrize("name", ["model.skops", "manifest.json"])
def test_what_is_wrong_with_a_file_of_a_package_is_said_with_its_place_and_what_to_do(
    package, tmp_path, name
):
    (package / name).rename(tmp_path / "elsewhere")
    (package / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"{package}/{name}: .* found a symbolic link; .*cp -rL"):
        opened(package)
    if name != "manifest.json":
        (package / name).unlink()
        with pytest.raises(ConfigError, match=rf"{package}/{name}: .* found No such file .*; copy the whole"):
            opened(package)


@pytest.mark.parametrize("name", ["model.skops", "manifest.json"])
def test_a_file_that_has_another_name_elsewhere_is_refused(package, tmp_path, name):
    """Whoever can write there changes what is read here."""
    os.link(package / name, tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="wanted a file with this one name, found hard links: 2"):
        opened(package)
    (tmp_path / "elsewhere").unlink()
    assert opened(package).signature.model_id == "iris"


def test_a_package_of_somebody_else_is_a_config_error(package, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mlinfer.hosts._package.os.open", refuse)
    with pytest.raises(
        ConfigError, match=r"wanted a package that this user may read, found Permission denied; .*chown"
    ):
        mlinfer.hosts.manifest(package)


def test_a_pipe_does_not_hold_the_opening_up(package):
    (package / "manifest.json").unlink()
    os.mkfifo(package / "manifest.json")
    with pytest.raises(ConfigError, match="wanted a regular file"):
        opened(package)


def test_a_manifest_may_not_name_files_elsewhere(package, tmp_path):
    files = json.loads((package / "manifest.json").read_text())["files"]
    (tmp_path / "secret").write_text("x")
    edit_manifest(package, files=files | {"../secret": sha256(tmp_path / "secret")})
    with pytest.raises(ConfigError, match="damaged or foreign"):
        opened(package)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": 2, "libraries": 1, "files": {}}']
)
def test_a_damaged_manifest_is_named(package, content):
    (package / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"manifest\.json: wanted the manifest"):
        opened(package)


@pytest.mark.parametrize("key", ["signature", "feed", "example", "method"])
def test_a_manifest_that_lacks_something_is_damaged(package, key):
    edit_manifest(package, **{key: None})
    with pytest.raises(ConfigError, match="damaged or foreign"):
        opened(package)


def parts_of(value, at=()):
    """The path of every value in a manifest: keys, and places in lists."""
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*at, name)
        yield from parts_of(value[name], (*at, name))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    frame = load_iris(as_frame=True).frame.reset_index(names="flower")
    path = tmp_path_factory.mktemp("trained") / "iris.mlinfer"
    mlinfer.train(
        frame, LogisticRegression(max_iter=500), target="target", split=mlinfer.lifecycle.ByKey("flower"), to=path,
        features=list(FRAME),
    )  # fmt: skip
    return path, json.loads((path / "manifest.json").read_text())


FOREIGN = [None, 0, -1.5, True, "x", [], ["x"], {}, {"x": 1}, [{"x": 1}], 10**30]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_manifest_without_any_one_part_or_with_a_foreign_one_works_or_is_a_clear_error(trained, data):
    path, facts = trained
    *way, last = data.draw(st.sampled_from(list(parts_of(facts))))
    facts = copy.deepcopy(facts)
    holder = functools.reduce(lambda one, name: one[name], way, facts)
    if data.draw(st.booleans(), "removed"):
        del holder[last]
    else:
        holder[last] = data.draw(st.sampled_from(FOREIGN))
    facts.pop("sealed", None)
    (path / "manifest.json").write_bytes(sealed(facts))
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(["inspect", str(path)])
    assert code == 0 or (code == 2 and "wanted" in said.getvalue())
    for compiled in ("auto", "never"):
        with (
            contextlib.suppress(ConfigError),
            SklearnHost(path, compile=compiled).open() as model,
        ):
            model.infer(model.example())


def test_a_model_that_is_not_there_says_where_it_was_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"found nothing at {tmp_path}.no.mlinfer; correct the path"):
        SklearnHost("no.mlinfer").open().__enter__()
    assert main(["serve", "no.mlinfer"]) == 2
    assert "wanted a pipeline in TOML or a saved model (a folder), found nothing" in capsys.readouterr().err


def test_inspect_names_what_a_manifest_lacks(package, capsys):
    compiled = {"form": "folded", "methods": ["predict"]}
    edit_manifest(package, compiled=compiled)
    assert main(["inspect", str(package)]) == 2
    assert "manifest.json: wanted 'compiled.proof' to be an object, found nothing" in capsys.readouterr().err
    edit_manifest(package, compiled=None, training={"by": "hand"})
    assert main(["inspect", str(package)]) == 0
    assert "not by mlinfer.train" in capsys.readouterr().out


def test_a_huge_manifest_is_not_read(package):
    with (package / "manifest.json").open("ab") as file:
        file.truncate(2**22 + 1)
    with pytest.raises(ConfigError, match="wanted at most 4,194,304 bytes"):
        opened(package)


def test_a_newer_format_is_named(package):
    edit_manifest(package, format=3)
    with pytest.raises(ConfigError, match="wanted a package of format 2, found 3"):
        opened(package)


def test_a_package_of_another_scikit_learn_is_refused_with_what_to_do(package):
    libraries = json.loads((package / "manifest.json").read_text())["libraries"]
    edit_manifest(package, libraries=libraries | {"scikit-learn": "1.2.3"})
    with pytest.raises(ConfigError, match=r"found 1\.2\.3; .*install 'scikit-learn==1\.2\.3'"):
        opened(package)


def test_a_missing_path_is_named(tmp_path):
    for name in ("m.skops", "m.mlinfer"):
        with pytest.raises(ConfigError, match=name):
            opened(tmp_path / name)


def test_a_package_brings_its_own_signature(package):
    with pytest.raises(ConfigError, match="leave example= out"):
        opened(package, example=FRAME)


# --- single files ------------------------------------------------------------------------------------------------------


def test_a_skops_file_is_opened_and_may_be_pinned(knn, tmp_path):
    path = tmp_path / "m.skops"
    skops.io.dump(knn, path)
    model = opened(path, example=FRAME, sha256=sha256(path))
    assert ask(model, FRAME) == knn.predict(FRAME).tolist()
    assert model.signature.digest == opened(knn, example=FRAME).signature.digest
    with pytest.raises(ConfigError, match="wanted the SHA-256"):
        opened(path, example=FRAME, sha256="0" * 64)
    with pytest.raises(ConfigError, match="wanted 64 hex digits"):
        opened(path, example=FRAME, sha256="beef")


def rewritten(path, change):
    """The skops file with another schema."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["schema.json"] = change(members["schema.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_skops_file_of_another_scikit_learn_is_refused(knn, tmp_path):
    path = tmp_path / "m.skops"
    skops.io.dump(knn, path)
    import sklearn

    rewritten(path, lambda schema: schema.replace(sklearn.__version__.encode(), b"1.2.3"))
    with pytest.raises(ConfigError, match=r"found 1\.2\.3"):
        opened(path, example=FRAME)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_skops_file_is_named(tmp_path, content):
    (tmp_path / "m.skops").write_bytes(content)
    with pytest.raises(ConfigError, match="damaged or foreign"):
        opened(tmp_path / "m.skops", example=FRAME)


def test_every_cut_of_a_skops_file_is_found(tmp_path):
    content = skops.io.dumps(GaussianNB().fit(X, Y))
    path = tmp_path / "m.skops"
    for length in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(ConfigError, match="damaged or foreign"):
            opened(path, example=X)


def test_a_file_that_unfolds_to_more_than_it_may_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * 2**25)
    (tmp_path / "m.skops").write_bytes(buffer.getvalue())
    with pytest.raises(ConfigError, match="unfolds to at most 100 times"):
        opened(tmp_path / "m.skops", example=X)


def forged_tree(model):
    tree = model.tree_
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 10**6
    tree.__setstate__(state)


def endless_tree(model):
    state = model.tree_.__getstate__()
    state["nodes"]["left_child"][0] = 0
    model.tree_.__setstate__(state)


def far_column(model):
    state = model.tree_.__getstate__()
    state["nodes"]["feature"][0] = 4
    model.tree_.__setstate__(state)


def foreign_tree(model):
    model.estimators_[1] = DecisionTreeClassifier().fit(np.c_[X, X], Y)


def forged_boosting(model):
    model._predictors[0][0].nodes["right"][0] = 10**6


def boosting_column(model):
    model._predictors[0][0].nodes["feature_idx"][0] = 77


@pytest.mark.parametrize(
    ("model", "forge"),
    [
        (DecisionTreeClassifier(), forged_tree),
        (DecisionTreeClassifier(), endless_tree),
        (DecisionTreeClassifier(), far_column),
        (RandomForestClassifier(3), foreign_tree),
        (HistGradientBoostingClassifier(max_iter=1), forged_boosting),
        (HistGradientBoostingClassifier(max_iter=1), boosting_column),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_tree_that_leads_outside_itself_is_refused(model, forge, tmp_path):
    model.fit(X, Y)
    forge(model)
    skops.io.dump(model, tmp_path / "m.skops")
    with pytest.raises(ConfigError, match="damaged or forged"):
        opened(tmp_path / "m.skops", example=X)


def test_an_index_of_neighbours_that_leads_outside_itself_is_refused(tmp_path):
    model = KNeighborsClassifier(algorithm="kd_tree").fit(X, Y)
    state = list(model._tree.__getstate__())
    state[1] = np.full_like(state[1], 10**6)
    model._tree.__setstate__(tuple(state))
    skops.io.dump(model, tmp_path / "m.skops")
    with pytest.raises(ConfigError, match="a KDTree that is damaged or forged"):
        opened(tmp_path / "m.skops", example=X)


# --- formats that are code ---------------------------------------------------------------------------------------------


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("ending", ["pkl", "pickle", "joblib", "PKL"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"allow_code_format": "pickle"},
        {"sha256": True},
        {"allow_code_format": "yes", "sha256": True},
        {"allow_code_format": "pickle", "sha256": "0" * 64},
    ],
)
def test_code_is_not_run_unless_format_and_digest_are_given(tmp_path, ending, options):
    path = tmp_path / f"m.{ending}"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    if options.get("sha256") is True:
        options = options | {"sha256": sha256(path)}
    with pytest.raises(ConfigError, match=r"sha256|SHA-256"):
        opened(path, example=X, **options)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(("ending", "dump"), [("pkl", pickle.dump), ("joblib", joblib.dump)])
def test_code_that_is_asked_for_twice_is_loaded_and_said_aloud(tmp_path, ending, dump, caplog):
    knn = KNeighborsClassifier(3).fit(FRAME, Y)
    path = tmp_path / f"m.{ending}"
    with path.open("wb") as file:
        dump(knn, file)
    with caplog.at_level(logging.WARNING, "mlinfer.security"):
        model = opened(path, example=FRAME, allow_code_format="pickle", sha256=sha256(path))
    assert ask(model, FRAME) == knn.predict(FRAME).tolist()
    assert "SECURITY" in caplog.text


def test_the_ending_alone_decides_how_a_file_is_read(knn, tmp_path):
    content = pickle.dumps(knn)
    for name in ("m.skops", "m", "m.bin", "m.zip"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=r"damaged or foreign|wanted a package"):
            opened(tmp_path / name, example=FRAME, allow_code_format="pickle", sha256=sha256(tmp_path / name))


def test_a_broken_pickle_is_an_error_of_its_own(tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(b"broken")
    with pytest.raises(ConfigError, match="wanted a pickle file"):
        opened(path, example=FRAME, allow_code_format="pickle", sha256=sha256(path))


AUDIT = """
import ast, sys
from mlinfer.hosts import SklearnHost

seen = []
WATCHED = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect"}
hosts = [SklearnHost(path, **options) for path, options in ast.literal_eval(sys.argv[1])]
import sklearn.ensemble, skops.io, pandas  # whatever importing does is not the opening's doing
sys.addaudithook(lambda event, args: seen.append(event) if event in WATCHED else None)
for host in hosts:
    with host.open() as model:
        print(host.model, model.signature.model_id, sorted(set(seen)))
"""


def test_opening_a_package_or_a_skops_file_never_unpickles(tmp_path):
    model = RandomForestClassifier(2).fit(FRAME, Y)
    package = mlinfer.save(model, tmp_path / "forest.mlinfer", example=FRAME)
    skops.io.dump(model, tmp_path / "forest.skops")
    pickled = tmp_path / "forest.pkl"
    pickled.write_bytes(pickle.dumps(model))
    allowed = {"allow_code_format": "pickle", "sha256": sha256(pickled)}
    hosts = [(str(package), {}), (str(tmp_path / "forest.skops"), {}), (str(pickled), allowed)]
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, repr(hosts)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        f"{package} forest []",
        f"{tmp_path / 'forest.skops'} forest []",
        f"{pickled} forest ['pickle.find_class']",  # so the hook does see
    ], done.stderr
