import inspect
import warnings

import pytest
import torch
from cases import grid

import bixt3d.ops
from bixt3d.ops import available_backends, dispatch, gather_points, knn
from bixt3d.ops.backends import vectorized
from bixt3d.ops.backends.tracing import constant_when_traced
from bixt3d.ops.dispatch import BACKENDS, Backend


@pytest.fixture
def picky(monkeypatch):
    """A first row of knn that counts its calls and refuses everything but float64."""
    calls = []

    def run(query, points, k):
        calls.append(k)
        return vectorized.knn(query, points, k)

    def why_not(query=None, points=None, k=None):
        return None if query is None or query.dtype == torch.float64 else "needs float64"

    monkeypatch.setitem(BACKENDS, "knn", (Backend("picky", run, why_not), *BACKENDS["knn"]))
    return calls


def test_every_public_op_has_a_row_and_a_reference():
    public = set(bixt3d.ops.__all__) - {"available_backends", "attention_weights", "join_latents"}
    assert public == set(BACKENDS)
    for rows in BACKENDS.values():
        names = [row.name for row in rows]
        assert "reference" in names
        assert len(set(names)) == len(names)


def test_the_reference_runs_where_no_other_does_and_the_library_before_all():
    for rows in BACKENDS.values():
        unnamed = [row.name for row in rows if row.chosen_unnamed()]
        assert (unnamed[0], unnamed[-1]) == ("cpu", "reference")


def test_automatic_choice_takes_the_first_that_can_run(picky):
    points = grid(1, 5, 3)
    knn(points, points, 2)
    assert picky == []
    knn(points.double(), points.double(), 3)
    assert picky == [3]


def test_a_named_backend_is_the_one_that_runs(picky):
    points = grid(1, 5, 3).double()
    knn(points, points, 2, backend="torch")
    assert picky == []
    knn(points, points, 2, backend="picky")
    assert picky == [2]


def test_a_named_backend_never_falls_back(picky):
    points = grid(1, 5, 3)
    with pytest.raises(NotImplementedError) as error:
        knn(points[:, :2], points, 2, backend="picky")
    message = str(error.value)
    for part in ("knn", "'picky'", "needs float64", "(1, 2, 3) float32 on cpu", "(1, 5, 3) float32 on cpu"):
        assert part in message
    assert picky == []


def test_the_environment_may_prefer_a_backend(picky, monkeypatch):
    first, *others = BACKENDS["knn"]
    monkeypatch.setitem(BACKENDS, "knn", (*others, first))  # the last one
    monkeypatch.setenv("BIXT3D_PREFER", "ball_query=torch,knn=picky")
    points = grid(1, 5, 3).double()
    knn(points, points, 2)
    knn(points.float(), points.float(), 3)  # which picky refuses
    knn(points, points, 4, backend="torch")
    assert picky == [2]


def test_a_preference_that_cannot_run_is_warned_of_once(picky, monkeypatch):
    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setenv("BIXT3D_PREFER", "knn=picky")
    points = grid(1, 5, 3)
    with pytest.warns(
        UserWarning, match="BIXT3D_PREFER: knn cannot use backend 'picky', which needs float64"
    ):
        knn(points, points, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        knn(points, points, 2)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("fps=triton", "unknown op in BIXT3D_PREFER 'fps'"),
        ("knn=cuda", "unknown backend of knn in BIXT3D_PREFER"),
    ],
)
def test_a_preference_for_nothing_is_refused(monkeypatch, value, said):
    monkeypatch.setenv("BIXT3D_PREFER", value)
    with pytest.raises(ValueError, match=said):
        knn(grid(1, 5, 3), grid(1, 5, 3), 2)


def test_the_reason_is_given_for_every_backend_when_none_can_run(monkeypatch):
    def refuse(*inputs):
        return "is out of order"

    rows = (Backend("a", vectorized.gather_points, refuse), Backend("b", vectorized.gather_points, refuse))
    monkeypatch.setitem(BACKENDS, "gather_points", rows)
    with pytest.raises(NotImplementedError, match="'a' is out of order; backend 'b' is out of order"):
        gather_points(torch.zeros(1, 2, 3), torch.zeros(1, 1, dtype=torch.int64))


def test_available_backends_lists_reasons_in_order_of_priority(picky):
    points = grid(1, 5, 3)
    names = ["picky", "triton", "cpu", "torch", "reference", "torch_cluster"]
    assert list(available_backends("knn")) == names
    assert available_backends("knn")["picky"] is None
    given = available_backends("knn", points, points, k=2)
    assert list(given) == names
    assert given["picky"] == "needs float64"
    assert given["torch"] is given["reference"] is None


def test_an_unknown_op_is_answered_with_the_known_ones_in_order():
    with pytest.raises(
        ValueError, match="unknown op 'fps'; choose one of: ball_query, bidirectional_att"
    ) as error:
        available_backends("fps")
    names = str(error.value).split("choose one of: ")[1].split(", ")
    assert names == sorted(BACKENDS)


@pytest.mark.parametrize("op", BACKENDS)
def test_every_keyword_of_an_op_may_be_asked_about(op):
    parameters = inspect.signature(getattr(bixt3d.ops, op)).parameters.values()
    options = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert available_backends(op, **options) == available_backends(op)


def test_options_count_where_they_are_asked_about():
    def refused(**options):
        return available_backends("bidirectional_attention", **options)["cpu"]

    assert "dropout_p" in refused(dropout_p=0.1, training=True)
    assert refused(dropout_p=0.1, training=False) == refused()
    update = torch.zeros(2, 4, dtype=torch.float64)
    assert available_backends("residual_mlp", update=update)["cpu"] is not None
    index = torch.zeros(1, 1, 257, dtype=torch.int64)
    assert available_backends("neighbor_max", index=index)["cpu"] is not None


def test_a_constant_is_computed_while_a_graph_is_traced():
    @constant_when_traced
    def untraceable():
        torch._dynamo.graph_break()
        return 3

    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x * untraceable(), fullgraph=True, backend="eager")
    assert compiled(torch.ones(2)).tolist() == [3, 3]
