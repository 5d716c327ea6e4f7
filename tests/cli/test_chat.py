"""``ctxpool chat`` on slices of the shipped conversation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ctxpool.cli import chat, chat_report, main, memories
from ctxpool.cli.conversation import (
    CONVERSATION,
    FACTS,
    Fact,
    found,
    read,
    read_facts,
    time_of,
    turns,
)
from ctxpool.cli.errors import UsageError
from ctxpool.cli.replay import Replay
from ctxpool.context import MessageCounter
from ctxpool.context.messages import Message

SHORT = ["--stop", "20", "--quiet"]


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.fixture(scope="module")
def conversation() -> list[Message]:
    return read(CONVERSATION)


# ---- The data that is shipped ----


def test_the_conversation_is_long_and_true_to_a_provider(
    conversation: list[Message],
) -> None:
    assert len(conversation) >= 250
    assert sum(map(MessageCounter(), conversation)) > 60_000
    assert CONVERSATION.stat().st_size + FACTS.stat().st_size < 1_000_000
    times = [time_of(message) for message in conversation]
    assert times == sorted(times)
    assert 17 <= (times[-1] - times[0]) / 86400 <= 21
    waiting: set[str] = set()
    for message in conversation:
        if message.role == "tool":
            waiting.remove(message.tool_call_id)  # each call is answered once
        else:
            assert not waiting, f"{message.id} comes before the results of {waiting}"
        waiting.update(call.id for call in message.tool_calls)
        for call in message.tool_calls:
            assert isinstance(json.loads(call.arguments), dict)
    assert not waiting


def test_every_question_has_its_answer_where_it_says(
    conversation: list[Message],
) -> None:
    facts = read_facts(FACTS, conversation)
    records = [json.loads(line) for line in FACTS.read_text().splitlines()]
    by_id = {record["id"]: record for record in records}
    assert len(by_id) == len(facts) >= 60
    for fact in facts:
        holders = [
            message.id
            for message in conversation[: fact.after]
            if found(fact.answers, message.text)
        ]
        assert holders == by_id[fact.id]["sources"], fact.id
        # Between turns: an answer that is still in the air would be no memory.
        assert fact.after == len(conversation) or (
            conversation[fact.after].role == "user"
        )
        if fact.superseded:
            before = conversation[: fact.after]
            assert any(found(fact.superseded, m.text) for m in before), fact.id
    distances = sorted(fact.distance for fact in facts)
    assert distances[0] <= 5
    assert distances[-1] >= 240
    kinds = {fact.kind for fact in facts}
    assert kinds == {
        *("name", "number", "decision"),
        *("superseded", "preference", "tool output"),
    }


# ---- Reading ----


@pytest.mark.parametrize(
    ("answer", "text", "is_there"),
    [
        ("8417", "it listens on 8417.", True),
        ("8417", "it listens on 18417", False),
        ("11,206", "11206 lines", True),
        ("1206", "11,206", False),
        ("never\nRaise", "Never   raise an alert", True),
        (">>>", "sends `>>>` then", True),
        ("1.32", "1.3", False),
    ],
)
def test_an_answer_stands_as_words_of_its_own(
    answer: str, text: str, is_there: bool
) -> None:
    assert found([answer], text) is is_there


def test_messages_without_id_and_time_get_them(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "c.jsonl",
        say("user", "Hello"),
        say("assistant", None, tool_calls=[
            {"id": "c1", "function": {"name": "ls", "arguments": "{}"}}]),
        say("tool", "a b", tool_call_id="c1"),
        say("user", [{"type": "text", "text": "one"}, {"type": "image_url"}],
            time="2026-03-02T09:00:00"),
    )  # fmt: skip
    made = read(path)
    assert [message.id for message in made] == ["1", "2", "3", "4"]
    assert [time_of(message) for message in made[:3]] == [0.0, 60.0, 120.0]
    assert made[3].content.strip() == "one"
    assert [(t.number, t.first, len(t.messages)) for t in turns(made)] == [
        (1, 0, 3),
        (2, 3, 1),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: Expecting property name"),
        ("[1]", "line 2: must be a JSON object, not '[1]'"),
        ('{"content": "x"}', "line 2: it has no role"),
        ('{"role": "boss", "content": "x"}', "line 2: role must be one of"),
        ('{"role": "user", "content": 7}', "line 2: content must be text, not 7"),
        ('{"role": "user", "content": "x", "id": "1"}', "a second message with the id"),
        (
            '{"role": "tool", "content": "x", "tool_call_id": "c"}',
            "no call before it has the id 'c'",
        ),
        ('{"role": "tool", "content": "x"}', "needs tool_call_id"),
        ('{"role": "assistant", "tool_calls": 7}', "tool_calls must be a list, not 7"),
        ('{"role": "assistant", "tool_calls": [7]}', "needs id and function, not 7"),
        ('{"role": "user", "content": "x", "time": "noon"}', "Invalid isoformat"),
        ("[" * 100_000, "line 2: "),
    ],
)
def test_a_bad_line_is_named(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"role": "user", "content": "fine"}\n' + line + "\n")
    assert main(["chat", "--replay", str(path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"{path}, line 2: " in said
    assert message in said


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "latin").write_bytes(b'{"role": "user", "content": "\xe9"}\n')
    for name, message in {
        "none": "No such file",
        "empty": "no message in it",
        "latin": "no UTF-8 text",
    }.items():
        with pytest.raises(UsageError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"answers": ["b"], "after": "2"}, "it has no question"),
        ({"question": "?", "answers": [], "after": "2"}, "it has no answers"),
        ({"question": "?", "answers": "b", "after": "2"}, "a list of texts, not 'b'"),
        ({"question": "?", "answers": [" "], "after": "2"}, "a list of texts"),
        ({"question": "?", "answers": ["b"], "after": "9"}, "no message has the id"),
        ({"question": "?", "answers": ["b"], "after": "1"}, "no answer of"),
    ],
)
def test_a_bad_question_is_named(
    record: dict[str, Any], message: str, tmp_path: Path
) -> None:
    messages = read(lines(tmp_path / "c", say("user", "a"), say("assistant", "b")))
    path = lines(tmp_path / "q", record)
    with pytest.raises(UsageError, match=f"q, line 1: .*{re.escape(message)}"):
        read_facts(path, messages)


# ---- The memories ----


@pytest.mark.parametrize("name", memories.MEMORIES)
def test_no_memory_sends_more_than_its_budget(
    name: str, conversation: list[Message]
) -> None:
    count = MessageCounter()
    memory = memories.make(name, 6500, count)
    try:
        for message in conversation[:110]:
            context = memory.see(message)
            assert (context is None) == (message.role != "user")
            if context is not None:
                sent = [*context.messages, *context.recalled]
                assert sum(map(count, sent)) <= 6500
        context = memory.context("On which port does the API listen?", 2e9)
        assert sum(map(count, [*context.messages, *context.recalled])) <= 6500
        left = memory.done["evicted"] + memory.done["spilled"]
        assert left > 20
        assert bool(memory.done["spilled"]) == (name in ("overflow", "hierarchical"))
    finally:
        memory.close()


def test_truncation_never_sends_an_answer_without_its_call(
    conversation: list[Message],
) -> None:
    memory = memories.make("truncation", 5000, MessageCounter())
    for message in conversation:
        context = memory.see(message)
        if context is not None:
            calls: set[str] = set()
            for sent in context.messages:
                calls.update(call.id for call in sent.tool_calls)
                assert sent.role != "tool" or sent.tool_call_id in calls


def test_a_fact_that_was_superseded_is_stale() -> None:
    messages = [
        Message("user", "The port is 8080.", metadata={"time": 0.0}, id="1"),
        Message("user", "No: the port is 8417.", metadata={"time": 1.0}, id="2"),
    ]

    class Forgetful(memories.Everything):
        def context(self, question: str, at: float) -> memories.Context:
            return memories.Context(self._messages[:1])

    fact = Fact("f", "Which port?", "number", ("8417",), ("8080",), 2, 0)
    replay = Replay(
        messages, [fact], [memories.Everything(), Forgetful()], MessageCounter()
    )
    replay.run(0, lambda turn: None)
    right, stale = (track.answers[0] for track in replay.tracks)
    assert (right.answered, right.stale) == (True, False)
    assert (stale.answered, stale.stale) == (False, True)


# ---- The command ----


def test_all_memories_beside_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chat.json"
    assert (
        main(["chat", "--stop", "110", "--budget", "6,500", "--json", str(path)]) == 0
    )
    said = capsys.readouterr().out
    result = json.loads(path.read_text())
    assert list(result["memories"]) == ["everything", *chat.MEMORIES]
    assert result["messages"] == 110
    rows = said.split(chat_report.HEADER)[1].split("\n\n")[0].strip().splitlines()
    shown = result["memories"]["hierarchical"]
    assert len(rows) == len(shown["turns"])
    assert max(map(len, said.splitlines())) <= 90
    for memory in result["memories"].values():
        facts = memory["facts"]
        assert facts["asked"] == sum(row["asked"] for row in memory["turns"]) > 5
        for groups in (facts["by_kind"], facts["by_distance"]):
            assert (
                sum(group["answered"] for group in groups.values())
                == (facts["answered"])
            )
        assert facts["asked"] - facts["answered"] == len(facts["missed"])
        assert sum(row["messages"] for row in memory["turns"]) == 110
        assert memory["turn"]["p50_ns"] <= memory["turn"]["max_ns"]
    score = {name: m["facts"]["answered"] for name, m in result["memories"].items()}
    assert score["everything"] == result["memories"]["everything"]["facts"]["asked"]
    assert score["hierarchical"] > score["truncation"]
    assert score["overflow"] > score["truncation"]
    assert shown["done"]["compress"] > 0
    assert shown["done"]["spilled"] > 0


def test_json_on_stdout_is_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", *SHORT[:2], "--memory", "window", "--json", "-"]) == 0
    said = capsys.readouterr()
    assert list(json.loads(said.out)["memories"]) == ["everything", "window"]
    assert "answerable facts" in said.err
    assert "turn  msgs" in said.err


def test_a_conversation_of_ones_own_needs_no_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "c", *(say("user", f"{n} " * 30) for n in range(20)))
    assert main(["chat", "--replay", str(path), "--budget", "200"]) == 0
    said = capsys.readouterr().out
    assert "answerable" not in said
    assert "20 messages" in said


def test_a_message_larger_than_the_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "c", say("user", "word " * 500, id="long"))
    assert main(["chat", "--replay", str(path), "--budget", "100", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "the message 'long' is too large for --memory window" in said
    assert "Take a larger --budget" in said


def test_a_memory_is_kept_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], conversation: list[Message]
) -> None:
    def replay(*more: str, code: int = 0) -> dict[str, Any]:
        out = tmp_path / "chat.json"
        arguments = ["--path", str(tmp_path / "memory"), "--json", str(out), "--quiet"]
        assert main(["chat", *arguments, *more]) == code
        result: dict[str, Any] = json.loads(out.read_text()) if code == 0 else {}
        return result

    first = replay("--stop", "30")
    assert first["resumed_after"] == 0
    assert list(first["memories"]) == ["hierarchical"]
    second = replay("--stop", "60")
    assert second["resumed_after"] == 30
    rows = second["memories"]["hierarchical"]["turns"]
    assert sum(row["messages"] for row in rows) == 30
    facts = read_facts(FACTS, conversation)
    asked = second["memories"]["hierarchical"]["facts"]["asked"]
    assert asked == sum(30 < fact.after <= 60 for fact in facts)
    # What was said before the restart is remembered.
    assert second["memories"]["hierarchical"]["facts"]["answered"] >= asked - 1
    capsys.readouterr()
    replay("--stop", "60", code=2)
    assert "it has seen all 60 messages" in capsys.readouterr().err
    other = lines(tmp_path / "other", say("user", "Something else."))
    replay("--replay", str(other), code=2)
    assert "it remembers another conversation" in capsys.readouterr().err


def test_what_is_wrong_is_found_before_the_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat, "_replay", lambda *_: pytest.fail("it went to work"))
    nowhere = str(tmp_path / "no" / "where.png")
    for arguments, message in (
        (["--json", nowhere], "No such file"),
        (["--path", nowhere, "--memory", "window"], "--memory hierarchical alone"),
        (["--questions", nowhere], "No such file"),
        (["--replay", nowhere], "No such file"),
    ):
        assert main(["chat", *arguments]) == 2
        assert message in capsys.readouterr().err
    for arguments in (
        ["--memory", "gold"],
        ["--budget", "0"],
        ["--budget", "many"],
        ["--stop", "-1"],
    ):
        with pytest.raises(SystemExit):
            main(["chat", *arguments])
        assert "must be" in capsys.readouterr().err


def test_an_unknown_tokenizer_and_a_folder_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", *SHORT, "--tokenizer", "abacus"]) == 2
    assert "--tokenizer abacus" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert main(["chat", *SHORT, "--path", str(tmp_path / "file")]) == 2
    assert f"--path {tmp_path / 'file'}" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_plots(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"chat.{suffix}"
    arguments = [*SHORT, "--memory", "truncation,hierarchical", "--plot", str(path)]
    assert main(["chat", *arguments]) == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!DOCTYPE html>"}[suffix]
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size > 20_000
    if suffix == "html":
        assert "answerable facts" in path.read_text()


def test_the_help_names_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    said = capsys.readouterr().out
    assert "--replay FILE" in said
    assert "in OpenAI's shape" in said
    assert chat.MEMORIES == memories.MEMORIES
