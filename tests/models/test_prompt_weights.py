"""A1111's prompt syntax, by the examples its own documentation gives."""

import pytest
import torch

from serve_app.errors import InvalidRequest
from serve_app.models.text.chunks import apply_weights, tokenize
from serve_app.models.text.prompt_weights import parse_weights
from tests.checkpoints import make_tokenizer


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        ("closed) never] opened", [("closed) never] opened", 1.0)]),
        ("at 10:30) or :3)", [("at 10:30) or :3)", 1.0)]),
        ("(a:1.5) BREAKFAST", [("a", 1.5), (" BREAKFAST", 1.0)]),
        ("[less]", [("less", 1 / 1.1)]),
        ("", [("", 1.0)]),
    ],
)
def test_weights_are_read_as_a1111_reads_them(prompt: str, parts: list[tuple[str, float]]) -> None:
    found = parse_weights(prompt)
    assert [part.text for part in found] == [text for text, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight for _, weight in parts])


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("(x:" + "9" * 41 + ")", "weights from -100 to 100"),
        ("(x:" + "9" * 400 + ")", "weights from -100 to 100"),
        ("((x:" + "9" * 400 + "):0)", "weights from -100 to 100"),
        ("((x:-50):3)", "weights from -100 to 100"),
        ("(" * 49 + "x", "weights from -100 to 100"),
        ("([" * 33 + "x", "at most 64 brackets open at once"),
        ("(" * 1000 + "a:" * 500, "at most 64 brackets open at once"),
    ],
    ids=["nines", "infinite", "nan", "product", "brackets", "deep", "deep and long"],
)
def test_weights_out_of_range_name_the_prompt(prompt: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^prompt: must have {reason}"):
        parse_weights(prompt)


def test_break_ends_a_chunk_and_is_padded() -> None:
    tokenizer = make_tokenizer()
    chunks = tokenize(tokenizer, "x y BREAK z", weighted=True)
    assert [chunk.ids for chunk in chunks] == [
        tokenizer(text, padding="max_length", max_length=77).input_ids for text in ("x y", "z")
    ]
    assert len(tokenize(tokenizer, "x y BREAK z", weighted=False)) == 1


def test_a_full_chunk_ends_at_its_last_comma() -> None:
    tokenizer = make_tokenizer()
    near = tokenize(tokenizer, "x " * 69 + ", " + "y " * 10, weighted=True)
    assert near[0].ids == tokenizer("x " * 69 + ",", padding="max_length", max_length=77).input_ids
    assert near[1].ids == tokenizer("y " * 10, padding="max_length", max_length=77).input_ids
    far = tokenize(tokenizer, "x " * 40 + ", " + "y " * 60, weighted=True)
    assert far[0].ids.count(far[0].ids[-2]) == 34, "more than 20 tokens back: the chunk is filled"


def test_a_weighted_token_is_scaled_and_the_mean_is_kept() -> None:
    tokenizer = make_tokenizer()
    states = torch.rand(2, 77, 4) + 1
    weighted = tokenize(tokenizer, "(x:2) y", True) + tokenize(tokenizer, "x", True)
    scaled = apply_weights(states, weighted)
    assert torch.equal(scaled[1], states[1]), "a chunk without weights is left alone"
    assert scaled[0].mean() == pytest.approx(float(states[0].mean()), rel=1e-5)
    ratio = scaled[0] / states[0]
    assert torch.allclose(ratio[1] / ratio[2], torch.tensor(2.0))
