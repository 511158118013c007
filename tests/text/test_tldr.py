"""The filters of the TL;DR dataset: each by itself, their order, what is counted, and the files they make."""

import json
from collections import Counter

import pytest

from rein.bpe.byte_level import ByteLevelBPE
from rein.errors import UserError
from rein.text.documents import Dropped
from rein.text.prompts import FORMATS, query_text, read_queries
from rein.text.prompts_command import PromptsConfig, prompts
from rein.text.tldr import SUBREDDITS, in_one_form, parted, post_fault, summary_fault, tldr_rows

BYTES = ByteLevelBPE(())  # a token is a byte, so that lengths are easily told
GOOD = "a summary of thirty-one letters"  # 31 bytes: between 24 and 48


def raw(n, **changes):
    """A row as Völske's files have it."""
    row = {
        "id": f"t3_{n}", "subreddit": "self", "title": f"Title {n}", "body": f"Story {n}.\n\nTL;DR: {GOOD}",
        "content": f"Story {n}.", "summary": GOOD, "author": "somebody",
    }  # fmt: skip
    return {**row, **changes}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reasons(path, **options):
    return [item.reason if isinstance(item, Dropped) else "kept" for item in tldr_rows([path], BYTES, **options)]


def test_the_whitelist_is_the_papers():
    assert len(SUBREDDITS) == 29
    assert sum(SUBREDDITS.values()) == 116_722  # the posts of the training set
    assert list(SUBREDDITS.values()) == sorted(SUBREDDITS.values(), reverse=True)


FAULTS = [
    (raw(0), "kept"),
    (raw(0, id="t3_other"), "duplicate body"),
    (raw(1, body="No mark of a summary.", summary="", content=""), "no TL;DR"),
    (raw(2, title=""), "no top-level post"),
    (raw(3, title=None), "no top-level post"),
    (raw(4, subreddit="funny"), "subreddit not listed"),
    (raw(5, title="Edit: it broke"), "title of an edit or update"),
    (raw(6, title="[UPDATE] she said yes"), "title of an edit or update"),
    (raw(7, title="Updated my home page"), "title of an edit or update"),
    (raw(8, title="Editing a novel at night"), "kept"),
    (raw(9, body=f"About a suicide.\n\nTL;DR: {GOOD}"), "graphic sex or suicide"),
    (raw(10, body="x" * 513 + f"\n\nTL;DR: {GOOD}"), "body over 512 tokens"),
    (raw(11, body="y" * 512 + f"\n\nTL;DR: {GOOD}"), "kept"),
    (raw(12, body="Story 12.\n\nTL;DR: Edit: " + GOOD), "summary begins with Edit, Update or P.S."),
    (raw(13, body="Story 13.\n\nTL;DR: P.S. " + GOOD), "summary begins with Edit, Update or P.S."),
    (raw(14, body="Story 14.\n\nTL;DR: ps " + GOOD), "summary begins with Edit, Update or P.S."),
    (raw(15, body="Story 15.\n\nTL;DR: PS4 of mine broke last week."), "kept"),
    (raw(16, body="Story 16.\n\nTL;DR: it is all fucked up from here on"), "profanity"),
    (raw(17, body="Story 17.\n\nTL;DR: " + "z" * 23), "summary not of 24 to 48 tokens"),
    (raw(18, body="Story 18.\n\nTL;DR: " + "z" * 24), "kept"),
    (raw(19, body="Story 19.\n\nTL;DR: " + "z" * 48), "kept"),
    (raw(20, body="Story 20.\n\nTL;DR: " + "z" * 49), "summary not of 24 to 48 tokens"),
]


def test_each_filter_drops_what_it_is_for(tmp_path):
    path = written(tmp_path / "posts.jsonl", [row for row, _ in FAULTS])
    assert reasons(path) == [why for _, why in FAULTS]


def test_the_prompts_of_ppo_pass_the_filters_of_posts_alone(tmp_path):
    path = written(tmp_path / "posts.jsonl", [row for row, _ in FAULTS])
    of_summaries = ("summary", "profanity")
    assert reasons(path, posts_only=True) == ["kept" if why.startswith(of_summaries) else why for _, why in FAULTS]


def test_filters_come_in_the_papers_order(tmp_path):
    """A row with every fault is dropped for the first; mended, for the next."""
    all_wrong = {"subreddit": "funny", "title": "", "body": "suicide " * 80 + "\n\nTL;DR: Edit: fuck"}
    mended = [
        ({}, "duplicate body"),
        ({"body": "suicide " * 79}, "no TL;DR"),
        ({"body": "suicide " * 79 + "\n\nTL;DR: Edit: fuck"}, "no top-level post"),
        ({"title": "Update"}, "subreddit not listed"),
        ({"subreddit": "self"}, "title of an edit or update"),
        ({"title": "Mine"}, "graphic sex or suicide"),
        ({"body": "o" * 600 + "\n\nTL;DR: Edit: fuck"}, "body over 512 tokens"),
        ({"body": "o" * 500 + "\n\nTL;DR: Edit: fuck"}, "summary begins with Edit, Update or P.S."),
        ({"body": "o" * 499 + "\n\nTL;DR: fuck"}, "profanity"),
        ({"body": "o" * 498 + "\n\nTL;DR: short"}, "summary not of 24 to 48 tokens"),
    ]
    row = dict(all_wrong)
    for number, (change, why) in enumerate(mended):
        row |= change
        # Bodies that come again would be dropped for that alone.
        rows = [raw(0), {**row, "id": "a"}] if number else [{**row, "id": "a"}, {**row, "id": "b"}]
        rows = [{"content": "", "summary": "", **one} for one in rows]
        path = written(tmp_path / f"{number}.jsonl", rows)
        assert reasons(path)[1] == why, change


def test_rows_in_the_released_form_pass_but_for_what_can_be_told_exactly(tmp_path):
    row = {"id": "t3_a", "subreddit": "self", "title": "Mine", "post": "He was suicidal.", "summary": "shit " * 6}
    assert reasons(written(tmp_path / "train.jsonl", [row])) == ["kept"]
    assert reasons(written(tmp_path / "b.jsonl", [{**row, "summary": "short"}])) == ["summary not of 24 to 48 tokens"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("A story.\n\nTL;DR: It was short.", ("A story.", "It was short.")),
        ("A story. tl;dr it was short", ("A story.", "it was short")),
        ("A story.\nTL DR -- short\n\nEdit: thanks!", ("A story.", "short")),
        ("tldr: short\n\nA story.", ("A story.", "short")),
        ("A tl;dr is below.\n\n**TL;DR:** short", ("A tl;dr is below.\n\n**", "short")),
        ("A story.\n\nTL;DR:", None),
        ("A battledress.", None),
    ],
)
def test_a_summary_is_told_from_its_post(body, found):
    assert parted(body) == found


def test_the_splits(tmp_path):
    rows = [raw(n) for n in range(400)]
    path = written(tmp_path / "posts.jsonl", rows)
    splits = [row["split"] for row in tldr_rows([path], BYTES, heldout_frac=0.25)]
    assert 60 < splits.count("heldout") < 140
    assert splits == [row["split"] for row in tldr_rows([path], BYTES, heldout_frac=0.25)]
    backwards = list(tldr_rows([written(tmp_path / "again.jsonl", rows[::-1])], BYTES, heldout_frac=0.25))
    assert [row["split"] for row in backwards[::-1]] == splits  # a row's split is its own
    named = next(iter(tldr_rows([written(tmp_path / "valid.jsonl", [raw(0)])], BYTES)))
    own = next(iter(tldr_rows([written(tmp_path / "test.jsonl", [raw(0, split="valid2")])], BYTES)))
    assert (named["split"], own["split"]) == ("valid", "valid2")


def test_rows_are_what_the_format_reads(tmp_path):
    (row,) = tldr_rows([written(tmp_path / "train.jsonl", [raw(0)])], BYTES)
    assert set(row) == {"id", "subreddit", "title", "post", "reference", "split"}
    assert query_text(FORMATS["tldr"], row) == "SUBREDDIT: r/self\n\nTITLE: Title 0\n\nPOST: Story 0.\n\nTL;DR:"
    assert in_one_form({"post": "p", "summary": "s"}, "f:9")["id"] == "f:9"
    assert post_fault(in_one_form(raw(0), ""), BYTES) is None
    assert summary_fault(in_one_form(raw(0), ""), BYTES) is None


def test_the_command_writes_rows_and_counts_what_it_dropped(tmp_path, capsys):
    path = written(tmp_path / "posts.jsonl", [row for row, _ in FAULTS])
    BYTES.save(tmp_path / "tokenizer.json")
    out = tmp_path / "rows.jsonl"
    prompts(PromptsConfig(files=(path,), source="tldr", tokenizer=tmp_path, out=out, show=1))
    said = capsys.readouterr().out
    counts = Counter(why for _, why in FAULTS)
    assert f"read      {len(FAULTS)} items, kept {counts['kept']}" in said
    for why, n in counts.items():
        if why != "kept":
            assert f"  {n}  {why}: posts.jsonl:" in said
    assert "TITLE: " in said
    assert "TL;DR: " in said
    queries = list(read_queries(out, FORMATS["tldr"]))
    assert len(queries) == counts["kept"]
    prompts(PromptsConfig(files=(path,), source="tldr", tokenizer=tmp_path, out=out, max_rows=2))
    assert "chosen    2" in capsys.readouterr().out
    chosen = [query.id for query in read_queries(out, FORMATS["tldr"])]
    assert len(chosen) == 2
    assert chosen == [query.id for query in queries if query.id in chosen]


def test_bad_settings_and_files_of_the_command(tmp_path):
    BYTES.save(tmp_path / "tokenizer.json")
    for settings, words in (
        ({"source": "tldr"}, "needs files"),
        ({"heldout_frac": 1.0}, "--heldout-frac is 1.0"),
        ({"max_rows": 0}, "--max-rows is 0"),
        ({"files": (tmp_path, tmp_path)}, "reads one corpus, but 2"),
    ):
        with pytest.raises(UserError, match=words):
            PromptsConfig(**settings)
    nothing = written(tmp_path / "none.jsonl", [raw(0, subreddit="funny")])
    out = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match="No row is left"):
        prompts(PromptsConfig(files=(nothing,), source="tldr", tokenizer=tmp_path, out=out))
    assert not out.exists()
