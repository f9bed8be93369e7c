"""Pictures: from a folder to labels in Parquet, from pictures to pictures, read back with Pillow."""

import base64
import io
import json
import sqlite3
import subprocess
import sys
import time
import warnings

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

import mlinfer
from mlinfer import STAGES, ConfigError, InferencePipeline, RecordErrors
from mlinfer._cli import main
from mlinfer.destinations import MemoryDestination, ParquetDestination, SqlDestination
from mlinfer.hosts import Chain, OnnxHost, Pictures, Png, Selected, SklearnHost, manifest
from mlinfer.sources import FilesSource, MemorySource

DIGITS = load_digits()
GREY = Pictures((8, 8), mode="L", scale=15)  # 16 levels, written as 0 to 240


def written(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def digit(number, side=8):
    return written(np.kron(DIGITS.images[number] * 15, np.ones((side // 8, side // 8))).astype(np.uint8))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "digits.mlinfer"
    known = GREY.matrix([digit(n) for n in range(1000)])
    np.testing.assert_array_equal(known, DIGITS.data[:1000])  # 0 to 16 again
    model = LogisticRegression(max_iter=2000).fit(known, DIGITS.target[:1000])
    return mlinfer.save(model, path, example=known, method=("predict", "predict_proba"), pictures=GREY), model


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(1000, 1040):
        (folder / f"{n}.png").write_bytes(digit(n))
    (folder / "1020.png").write_bytes(digit(1020)[:60])
    return folder


GOOD = [n for n in range(1000, 1040) if n != 1020]


# --- scikit-learn: a folder of pictures, labels and probabilities in Parquet ---------------------------------------------


def test_a_folder_of_digits_becomes_labels_and_probabilities_in_parquet(package, folder, tmp_path):
    path, model = package
    rejects = MemoryDestination()
    pipeline = InferencePipeline(
        FilesSource(folder), SklearnHost(path), ParquetDestination(tmp_path / "out"),
        name="digits", keep=["path"], rejects=rejects, require="at-least-once",
    )  # fmt: skip
    report = pipeline.run()
    assert (report.delivered, report.rejected) == (39, 1)
    found = pq.read_table(tmp_path / "out").sort_by("path").to_pydict()
    assert found["path"] == [f"{n}.png" for n in GOOD]
    assert found["y_pred"] == model.predict(DIGITS.data[GOOD]).tolist()
    wanted = model.predict_proba(DIGITS.data[GOOD])
    np.testing.assert_allclose(np.array(found["y_proba"]), wanted, rtol=0, atol=1e-12)
    (reject,) = rejects.table("rejects").to_pylist()
    assert (reject["record_id"], reject["kind"]) == ("1020.png", "no_picture")
    assert "0x" not in reject["message"]  # Pillow's own words may name memory


def test_a_file_describes_the_whole_pipeline(package, folder, tmp_path):
    (tmp_path / "p.toml").write_text(f"""
        name = "digits"
        keep = ["path"]
        source = {{ type = "files", path = "{folder}" }}
        host = {{ type = "sklearn", model = "{package[0]}" }}
        destination = {{ type = "parquet", path = "{tmp_path}/out" }}
        rejects = {{ type = "jsonl", path = "{tmp_path}/rejects.jsonl" }}
    """)
    assert main(["run", str(tmp_path / "p.toml")]) == 0
    assert pq.read_table(tmp_path / "out").num_rows == 39
    (reject,) = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["record_id"] == "1020.png"


def test_pictures_in_hand_are_answered_the_same_way(package):
    path, model = package
    with InferencePipeline(MemorySource([]), SklearnHost(path), MemoryDestination()) as pipeline:
        found = pipeline.infer({"bytes": [digit(7), b"", digit(8)]}, on_reject="null").to_pydict()
    assert found["status"] == ["ok", "no_picture", "ok"]
    assert found["y_pred"] == [model.predict(DIGITS.data[[7]])[0], None, model.predict(DIGITS.data[[8]])[0]]


def test_a_server_takes_pictures_in_base64_and_in_the_open_inference_protocol(package):
    import urllib.error
    import urllib.request

    from tritonclient.http import InferenceServerClient, InferInput

    path, model = package
    pipeline = InferencePipeline(MemorySource({"bytes": [digit(0)]}), SklearnHost(path), MemoryDestination())
    with pipeline.serving() as server:

        def ask(text):
            body = json.dumps([{"bytes": text}]).encode()
            asked = urllib.request.Request(
                f"{server.url}/predict", body, {"Content-Type": "application/json"}
            )
            return json.load(urllib.request.urlopen(asked))

        wanted = model.predict(DIGITS.data[[7]])
        assert ask(base64.b64encode(digit(7)).decode())[0]["y_pred"] == wanted
        for text, said in (("no base64!", "as text in base64"), ("aGk=", "wanted a picture")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(text)
            with refused.value as reply:
                assert reply.code == 422
                assert said in reply.read().decode()
        tensor = InferInput("bytes", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([digit(7)], object))
        with InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert client.infer("digits", [tensor]).as_numpy("y_pred") == wanted


AUDIT = """
import sys
found = []
sys.addaudithook(lambda event, given: found.append(given) if event == "pickle.find_class" else None)
from mlinfer.hosts import SklearnHost
with SklearnHost(sys.argv[1]).open() as model:
    print(model.infer(model.example()).num_rows, sorted({"sklearn", "skops", "joblib"} & set(sys.modules)), found)
"""


def test_a_package_of_pictures_is_opened_and_asked_without_scikit_learn_and_without_unpickling(package):
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, package[0]], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 [] []\n"


def test_the_manifest_declares_how_pictures_are_prepared(package, capsys):
    facts = manifest(package[0])
    assert facts["pictures"] == {
        "size": [8, 8], "mode": "L", "mean": 0.0, "scale": 15.0, "layout": "HWC", "background": None,
    }  # fmt: skip
    assert facts["fields"]["inputs"] == [{"name": "bytes", "type": "binary", "nullable": False}]
    assert facts["compiled"]["form"] == "folded into one product (numpy)"
    assert facts["libraries"]["pillow"]
    main(["inspect", str(package[0])])
    assert "pictures   8 x 8, L, (pixel - 0.0) / 15.0, HWC" in capsys.readouterr().out


def test_another_preparation_is_another_version(package, tmp_path):
    path, model = package
    other = Pictures((8, 8), mode="L", scale=16)
    second = mlinfer.save(model, tmp_path / "digits.mlinfer", example=DIGITS.data[:9], pictures=other)
    assert manifest(second)["version"] != manifest(path)["version"]
    assert manifest(second)["digest"] != manifest(path)["digest"]


def test_a_recipe_that_makes_other_numbers_than_the_estimator_takes_is_refused(package, tmp_path):
    with pytest.raises(ConfigError, match="wanted an estimator that takes a matrix of 192 numbers"):
        mlinfer.save(package[1], tmp_path / "m", example=DIGITS.data[:9], pictures=Pictures((8, 8)))


def test_a_newer_version_takes_over_under_a_watch(package, tmp_path):
    path = mlinfer.save(package[1], tmp_path / "m.mlinfer", example=DIGITS.data[:9], pictures=GREY)
    with SklearnHost(path, watch=True).open() as model:
        assert model.infer(model.example()).num_rows == 2
        first = model.signature.version
        newer = LogisticRegression(max_iter=2000).fit(DIGITS.data[:99], DIGITS.target[:99])
        mlinfer.save(newer, path, example=DIGITS.data[:9], pictures=GREY, replace=True)
        until = time.monotonic() + 60
        while (found := model.newer()) is None and time.monotonic() < until:
            time.sleep(0.01)
        assert found.signature.version != first
        assert found.infer(found.example()).num_rows == 2


# --- ONNX: pictures to labels, and pictures to pictures -----------------------------------------------------------------


def graph(tmp_path, nodes, outputs, weights=(), *, shape):
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(name, kind, ["n", *of]) for name, kind, of in outputs],
        [numpy_helper.from_array(value, name) for name, value in dict(weights).items()],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), str(path))
    return path


def test_a_folder_of_digits_through_onnx_becomes_labels_and_probabilities(folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((16,), max_iter=40, random_state=0).fit(DIGITS.data[:900], DIGITS.target[:900])
    weights = {f"w{n}": w.astype(np.float32) for n, w in enumerate(model.coefs_)}
    weights |= {f"b{n}": w.astype(np.float32) for n, w in enumerate(model.intercepts_)}
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w0", "b0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probability"]),
        helper.make_node("ArgMax", ["probability"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [("label", TensorProto.INT64, []), ("probability", TensorProto.FLOAT, [10])]
    path = graph(tmp_path, nodes, outputs, weights, shape=(1, 8, 8))
    recipe = Pictures((8, 8), mode="L", scale=15, layout="CHW")
    host = Chain(Selected(recipe, {"pixels": "x"}), OnnxHost(path))
    pipeline = InferencePipeline(
        FilesSource(folder), host, ParquetDestination(tmp_path / "out"),
        name="digits", keep=["path"], rejects=MemoryDestination(),
    )  # fmt: skip
    assert (pipeline.run().delivered, pipeline.infer({"bytes": [digit(3)]})["label"][0].as_py()) == (39, 3)
    found = pq.read_table(tmp_path / "out").sort_by("path").to_pydict()
    assert found["label"] == model.predict(DIGITS.data[GOOD]).tolist()
    np.testing.assert_allclose(
        np.array(found["probability"]), model.predict_proba(DIGITS.data[GOOD]), atol=1e-5
    )


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_a_sample_picture_comes_out_of_an_onnx_model_as_png(layout, tmp_path):
    """The model turns colours around; mean and scale are undone by Png."""
    folder = tmp_path / "in"
    folder.mkdir()
    shape = (3, 40, 64) if layout == "CHW" else (40, 64, 3)
    for n, picture in enumerate(load_sample_images().images):
        (folder / f"{n}.png").write_bytes(written(picture[:400:10, :640:10]))
    path = graph(
        tmp_path, [helper.make_node("Neg", ["pixels"], ["turned"])], [("turned", TensorProto.FLOAT, shape)],
        shape=shape,
    )  # fmt: skip
    about = {"size": (64, 40), "mean": (127.5, 127.5, 127.5), "scale": 127.5, "layout": layout}
    host = Chain(
        Selected(Pictures(**about), {"pixels": "x"}), Selected(OnnxHost(path), {"x": "turned"}), Png(**about)
    )
    database = tmp_path / "out.db"
    pipeline = InferencePipeline(
        FilesSource(folder), host, SqlDestination(f"sqlite:///{database}", table="turned"),
        name="turned", keep=["path"], require="exactly-once",
    )  # fmt: skip
    assert pipeline.run().delivered == 2
    rows = sqlite3.connect(database).execute("select path, png from turned order by path").fetchall()
    for (name, png), before in zip(rows, sorted(folder.iterdir()), strict=True):
        assert name == before.name
        with Image.open(io.BytesIO(png)) as after:
            assert (after.format, after.mode, after.size) == ("PNG", "RGB", (64, 40))
            np.testing.assert_array_equal(np.asarray(after), 255 - np.asarray(Image.open(before)))
    answer = pipeline.infer({"bytes": [(folder / "0.png").read_bytes()]})["png"][0].as_py()
    assert answer == rows[0][1]


def test_any_host_that_answers_bytes_answers_pictures(folder, tmp_path):
    @mlinfer.host(inputs={"bytes": "binary"}, outputs={"png": "binary"})
    def larger(records):
        answers = []
        for content in records.column("bytes").to_pylist():
            file = io.BytesIO()
            Image.open(io.BytesIO(content)).resize((32, 32)).save(file, "PNG")
            answers.append(file.getvalue())
        return {"png": answers}

    pipeline = InferencePipeline(
        FilesSource(folder), larger, ParquetDestination(tmp_path / "out"),
        name="larger", keep=["path"], rejects=MemoryDestination(),
    )  # fmt: skip
    assert pipeline.run().delivered == 39
    for png in pq.read_table(tmp_path / "out")["png"].to_pylist():
        with Image.open(io.BytesIO(png)) as picture:
            assert (picture.format, picture.size) == ("PNG", (32, 32))


# --- what a recipe does with pictures of all sorts ----------------------------------------------------------------------


def one(content, *args, **options):
    recipe = Pictures(*args, **options)
    (row,) = recipe.matrix([content])
    shape = (len(row) // (recipe.size[0] * recipe.size[1]), *recipe.size[::-1])
    return row.reshape(shape) if recipe.layout == "CHW" else row.reshape(*shape[1:], shape[0])


COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def test_numbers_are_what_the_recipe_says():
    mean, scale = (1.0, 2.0, 3.0), (2.0, 4.0, 5.0)
    wanted = (COLOURS - np.array(mean)) / scale
    np.testing.assert_array_equal(one(written(COLOURS), (7, 5), mean=mean, scale=scale), wanted)
    found = one(written(COLOURS), (7, 5), mean=mean, scale=scale, layout="CHW")
    np.testing.assert_array_equal(found, np.moveaxis(wanted, 2, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_as_exif_says(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1], 5: COLOURS.swapaxes(0, 1),
        6: np.rot90(COLOURS, -1), 7: COLOURS[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(COLOURS),
    }[orientation]  # fmt: skip
    found = one(written(COLOURS, exif=exif), turned.shape[1::-1])
    np.testing.assert_array_equal(found, turned)


def test_grey_alpha_and_palettes_become_what_is_declared():
    grey = COLOURS[:, :, 0]
    np.testing.assert_array_equal(one(written(grey), (7, 5))[:, :, 2], grey)
    luma = one(written(COLOURS), (7, 5), mode="L")[:, :, 0]
    assert np.abs(luma - COLOURS @ [0.299, 0.587, 0.114]).max() < 1
    alpha = np.dstack([COLOURS, np.where(grey > 99, 255, 0).astype(np.uint8)])
    np.testing.assert_array_equal(one(written(alpha), (7, 5), mode="RGBA"), alpha)
    np.testing.assert_array_equal(one(written(alpha), (7, 5)), COLOURS)
    over = one(written(alpha), (7, 5), background=(0, 0, 255))
    np.testing.assert_array_equal(over, np.where(grey[:, :, None] > 99, COLOURS, [0, 0, 255]))
    few = Image.fromarray(COLOURS).quantize(4)
    file = io.BytesIO()
    few.save(file, "PNG", transparency=0)
    np.testing.assert_array_equal(one(file.getvalue(), (7, 5)), np.asarray(few.convert("RGB")))
    deep = grey.astype(np.uint16) * 256 + 17
    np.testing.assert_array_equal(one(written(deep), (7, 5), mode="L")[:, :, 0], grey)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP"])
def test_every_format_that_is_promised_is_read(kind):
    smooth = np.full((5, 7, 3), 200, np.uint8)
    assert np.abs(one(written(smooth, kind), (7, 5)) - 200).max() < 4


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "ICO", "PDF"])
def test_other_formats_are_refused_though_pillow_knows_them(kind):
    with pytest.raises(RecordErrors, match="no_picture"):
        Pictures((7, 5)).matrix([written(COLOURS, kind)])


def test_a_bomb_is_refused_before_it_is_unfolded(monkeypatch):
    content = written(COLOURS)
    monkeypatch.setattr("mlinfer.hosts._pillow.MOST_PIXELS", 34)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(
        RecordErrors, match="too_large: wanted a picture of at most 34 pixels and 65,536 a side, found 7 x 5"
    ):
        Pictures((7, 5)).matrix([content])


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])  # Pillow lets it pass, warns, refuses
def test_a_header_that_promises_too_much_is_a_reject(side):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RecordErrors, match="too_large"):
            Pictures((7, 5)).matrix([b"P5 %d %d 255 " % (side, side)])


SEEDS = [written(COLOURS, kind) for kind in ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), max_size=5), st.integers(0, 999))  # fmt: skip
def test_damaged_bytes_are_answered_or_refused_and_nothing_else(content, changes, cut):
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    if cut < len(damaged):
        del damaged[cut:]
    try:
        found = Pictures((7, 5)).matrix([bytes(damaged)]).shape
    except RecordErrors as error:
        found = error.kinds
    assert found in ((1, 105), ["no_picture"], ["too_large"])
    assert {"no_picture", "too_large"} <= {*STAGES["infer"].kinds}


# --- and with batches ---------------------------------------------------------------------------------------------------


def batch(contents):
    return pa.record_batch({"bytes": pa.array(contents, pa.binary())})


def test_a_damaged_picture_does_not_have_its_neighbours_decoded_twice(monkeypatch):
    from mlinfer.hosts import _pictures

    seen, decoded = [], _pictures.decoded
    monkeypatch.setattr(
        _pictures, "decoded", lambda lib, content, **how: seen.append(content) or decoded(lib, content, **how)
    )
    contents = [digit(1), b"?", digit(2)]
    host = Chain(GREY, Selected(GREY_SUM, {"sum": "sum"}))
    with InferencePipeline(MemorySource([]), host, MemoryDestination()) as pipeline:
        found = pipeline.infer({"bytes": contents}, on_reject="null")
        assert found["sum"].to_pylist() == [DIGITS.data[1].sum(), None, DIGITS.data[2].sum()]
        assert seen == contents
        assert pipeline.infer({"bytes": [digit(3)]})["sum"][0].as_py() == DIGITS.data[3].sum()


@mlinfer.host(inputs={"x": pa.list_(pa.float64(), 64)}, outputs={"sum": "double"}, takes="numpy", version="1")
def GREY_SUM(x):  # noqa: N802 - a recipe
    return x.sum(1)


def test_many_large_pictures_are_taken_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("mlinfer.hosts._pictures.MOST_FLOAT_BYTES", 3 * 64 * 8)
    with InferencePipeline(MemorySource([]), Chain(GREY, GREY_SUM), MemoryDestination()) as pipeline:
        found = pipeline.infer({"bytes": [digit(n) for n in range(20)]})
    assert found["sum"].to_pylist() == DIGITS.data[:20].sum(1).tolist()
    with GREY.open() as model, pytest.raises(MemoryError, match="4 pictures are 2,048 bytes of numbers"):
        model.infer(batch([digit(1)] * 4))


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12), st.sampled_from(["HWC", "CHW"]))
@settings(max_examples=50, deadline=None)
def test_png_undoes_what_pictures_does(values, layout):
    about = {"size": (2, 2), "mean": (9.0, 99.0, 199.0), "scale": (3.0, 30.0, 300.0), "layout": layout}
    pixels = np.array(values, np.uint8).reshape(2, 2, 3)
    with Pictures(**about).open() as there, Png(**about).open() as back:
        png = back.infer(there.infer(batch([written(pixels)]))).column("png")[0].as_py()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels)


def test_numbers_outside_the_range_of_pixels_are_cut_off():
    numbers = pa.array([[-9.0, 0.4, 0.6, 300.0]], pa.list_(pa.float64(), 4))
    with Png((4, 1), mode="L").open() as model:
        png = model.infer(pa.record_batch({"x": numbers})).column(0)[0].as_py()
    assert np.asarray(Image.open(io.BytesIO(png))).tolist() == [[0, 0, 1, 255]]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Pictures((0, 8)), "wanted size="),
        (Pictures((8, 8, 3)), "wanted size="),
        (Pictures((9000, 9000)), "wanted at most 16,777,216 values"),
        (Pictures((8, 8), mode="CMYK"), "wanted mode 'L', 'RGB' or 'RGBA'"),
        (Pictures((8, 8), layout="CWH"), "layout 'HWC' or 'CHW'"),
        (Pictures((8, 8), mean=(1.0, 2.0)), "wanted mean as one number, or one for each of 3 channels"),
        (Pictures((8, 8), scale=(1.0, 0.0, 1.0)), "none of them 0"),
        (Pictures((8, 8), mean=float("nan")), "wanted mean"),
        (Pictures((8, 8), background=(0, 0, 256)), "wanted background="),
        (Png((8, 8), scale=0), "wanted scale"),
    ],
)
def test_what_is_no_recipe_is_refused_when_it_is_opened(recipe, message):
    with pytest.raises(ConfigError, match=message), recipe.open():
        pass


def test_without_pillow_the_way_to_get_it_is_told(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    for host in (GREY, Png((8, 8)), SklearnHost(package[0])):
        with pytest.raises(ConfigError, match=r"pip install 'mlinfer\[images\]'"), host.open():
            pass


def test_recipes_are_recipes():
    import pickle

    assert pickle.loads(pickle.dumps(GREY)) == GREY == Pictures(**json.loads(json.dumps(GREY.to_json())))
    assert repr(GREY) == repr(Pictures([8, 8], mode="L", scale=15.0))
    assert Png((8, 8), mode="L", scale=15) != GREY
