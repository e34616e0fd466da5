"""The abstract's claims are judged pairwise by seed, on numbers that can be checked by hand."""

import pandas
import pytest

from paper.tables.claims import claims

KIND = {"kind": "classification"}


def rows(pruned, *, methods=("dense", "edropout"), models=("a",)):
    lines = []
    for model in models:
        for seed, (top1, top5, kept) in enumerate(pruned, 1):
            common = {"dataset": "d", "model": model, "seed": seed, "evaluation": "pruned", "status": "done"} | KIND
            dense = {"method": "dense", "top1": 0.90, "top5": 0.99, "kept_ratio": 1.0, "authors_kept_ratio": None}
            own = {"method": "edropout", "top1": top1, "top5": top5, "kept_ratio": kept, "authors_kept_ratio": None}
            lines += [{**common, **line} for line in (dense, own) if line["method"] in methods]
    return pandas.DataFrame(lines).astype({"authors_kept_ratio": float})


def results(frame):
    return [(row[1].text, row[2].text, row[4].text, row[5].text) for row in claims(frame, "d").rows]


def test_claims_hold_or_fail_by_the_mean_with_numbers():
    table = results(rows([(0.89, 0.97, 0.3), (0.87, 0.97, 0.3), (0.88, 0.97, 0.3)]))
    assert [line[3] for line in table] == ["holds", "holds", "fails"]
    assert table[0][2] == "70.00 ± 0.00"
    # Drops 1, 3, 2 points: mean 2, half width 4.302653 / sqrt(3).
    assert table[1][2] == "2.00 ± 2.48" and table[2][2] == "2.00 ± 0.00"


def test_an_interval_across_the_limit_is_marked():
    wide = results(rows([(0.89, 0.985, 0.1), (0.80, 0.985, 0.85), (0.845, 0.985, 0.475)]))
    assert wide[0][3] == "holds (interval crosses the limit)"
    assert wide[1][2].startswith("5.50 ±") and wide[1][3] == "fails (interval crosses the limit)"


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_say_too_little(seeds):
    found = {line[3] for line in results(rows([(0.89, 0.985, 0.3)] * seeds))}
    assert found == {"too little to say: fewer than 3 seeds"}


def test_a_drop_from_a_network_near_chance_says_too_little():
    frame = rows([(0.11, 0.985, 0.3)] * 3).assign(chance=0.1)
    frame.loc[frame["method"] == "dense", "top1"] = 0.12
    assert [line[3] for line in results(frame)] == [
        "holds",
        *["too little to say: the dense network is near chance"] * 2,
    ]
    frame.loc[frame["method"] == "dense", "top1"] = 0.5
    assert [line[3] for line in results(frame)] == ["holds", "fails", "holds"]


def test_without_a_dense_network_a_drop_is_not_evaluated():
    table = results(rows([(0.89, 0.985, 0.3)] * 3, methods=("edropout",)))
    assert [line[3].split(":")[0] for line in table] == ["holds", "not evaluated", "not evaluated"]


def test_a_seed_that_one_model_lacks_does_not_count_in_the_mean_over_models():
    frame = rows([(0.89, 0.985, 0.4), (0.89, 0.985, 0.2)], models=("a", "b"))
    lost = (frame["model"] == "b") & (frame["seed"] == 2) & (frame["method"] == "edropout")
    frame.loc[lost, ["top1", "top5", "kept_ratio"]] = float("nan")
    table = {(line[0], line[1]): line for line in results(frame)}
    mean = table["mean of 2", "more than 50 % of the parameters pruned"]
    assert mean[2] == "60.00" and mean[3].startswith("too little to say")


def test_a_dataset_without_edropout_has_no_claims():
    assert claims(rows([(0.9, 0.9, 0.3)], methods=("dense",)), "d") is None
