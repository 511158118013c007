"""Files into a store and out of it again: what tests of the formats begin with."""

from __future__ import annotations

import io
import json

from rein.feedback.exchange.exporting import export
from rein.feedback.exchange.importing import import_file

SECRET = bytes(range(32))


def lines_of(data):
    return [json.loads(line) for line in data.decode().splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


class Exchange:
    """A store that files come into, a project that is named, and what goes out of it."""

    def __init__(self, store, folder, project="tldr"):
        self.store, self.folder, self.project = store, folder, project

    def put(self, rows, format="", *, name="rows.jsonl", **options):
        """Imports rows, written as JSON lines, or a file as it is."""
        path = write_lines(self.folder / name, rows) if isinstance(rows, list) else rows
        return import_file(self.store, self.project, format, path, **{"create": True, **options})

    def bytes(self, format, **options):
        out = io.BytesIO()
        with self.store.reading() as conn:
            export(conn, self.project, format, out, secret=SECRET, **options)
        return out.getvalue()

    def rows(self, format, **options):
        return lines_of(self.bytes(format, **options))

    def count(self, table):
        from sqlalchemy import func, select

        with self.store.reading() as conn:
            return conn.execute(select(func.count()).select_from(table)).scalar()


def comparison(post="a post", texts=(" one", " two"), choice=1, worker="w1", confidence=8, notes=(None, None), **more):
    """A line as OpenAI released them."""
    return {
        "info": {"id": f"t3_{post}", "post": post, "title": "a title", "subreddit": "tifu"},
        "summaries": [
            {"text": text, "policy": policy, "note": note}
            for text, policy, note in zip(texts, ("sup4_ppo_rm3_kl10", "ref"), notes, strict=True)
        ],
        "choice": choice, "worker": worker, "batch": "batch9", "split": "train", "extra": {"confidence": confidence},
        **more,
    }  # fmt: skip


def swapped(row):
    """The same judgement, with the sides the other way round."""
    extra = {**row["extra"], "confidence": 10 - row["extra"]["confidence"]}
    return {**row, "summaries": row["summaries"][::-1], "choice": 1 - row["choice"], "extra": extra}


def axes(**more):
    """Marks of a summary of a news article, as OpenAI released them."""
    return {
        "info": {"id": "167f", "site": "dailymail", "title": "A title", "article": "An article."},
        "split": "test",
        "summary": {
            "text": "A summary.", "policy": "ref", "note": "Clear?",
            "axes": {"overall": 3, "accuracy": 5, "coverage": 4, "coherence": 2},
        },
        "worker": "w2", "batch": "cnndm1", **more,
    }  # fmt: skip
