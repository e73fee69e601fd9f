"""Reading notes: what is read, from where, and how well."""

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernos.apps.medical_qa.emergency import is_emergency
from kernos.apps.medical_qa.evaluate import emergencies, fields_read
from kernos.apps.medical_qa.notes import Record, read_note
from kernos.apps.medical_qa.notes.fields import fields_of, misplaced
from kernos.apps.medical_qa.notes.marked import FOLDER, MarkedNote, compare, read_marked


def problems(text: str) -> list[tuple[str, str]]:
    return [(problem.name.value, problem.status.value) for problem in read_note(text).problems]


def drugs(text: str) -> list[dict[str, str]]:
    return [{name: field.value for name, field in fields_of(drug).items()} for drug in read_note(text).drugs]


def values(text: str) -> list[tuple[str, ...]]:
    return [tuple(field.value for field in fields_of(value).values()) for value in read_note(text).laboratory]


def days(text: str) -> list[str]:
    return [event.date.value for event in read_note(text).timeline]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She has HTN and asthma.", [("hypertension", "present"), ("asthma", "present")]),
        ("No fever, chills or cough.", [("fever", "absent"), ("chills", "absent"), ("cough", "absent")]),
        ("No fever but a cough.", [("fever", "absent"), ("cough", "present")]),
        ("Pneumonia was ruled out.", [("pneumonia", "absent")]),
        ("Possible appendicitis.", [("appendicitis", "suspected")]),
        ("h/o asthma; s/p MI", [("asthma", "present"), ("myocardial infarction", "past")]),
        ("Her mother has gout.", [("gout", "family")]),
        ("His mother says he has a cough.", [("cough", "present")]),
        ("Return if fever.", []),
        ("Allergies: aspirin (hives)", []),
        ("SpO2 97 % on RA", []),
        ("Denies fever/chills.", [("fever", "absent"), ("chills", "absent")]),
        ("N/V since noon", [("nausea", "present"), ("vomiting", "present")]),
    ],
)
def test_the_words_around_a_problem_say_whether_the_patient_has_it(text: str, expected: list[tuple[str, str]]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zocor 20 mg po qhs", {"name": "simvastatin", "status": "taking", "dose": "20 mg", "route": "oral", "frequency": "at bedtime"}),
        (
            "ibuprofen 400-600 mg q6-8h prn",
            {"name": "ibuprofen", "status": "taking", "dose": "400-600 mg", "frequency": "every 6-8 hours as needed"},
        ),
        ("Stopped the naproxen.", {"name": "naproxen", "status": "stopped"}),
        ("Allergic to codeine.", {"name": "codeine", "status": "allergic"}),
        ("two tablets of senna at night", {"name": "senna", "status": "taking", "dose": "2 tablets", "frequency": "at bedtime"}),
        ("digoxin from 125 mcg to 250 mcg daily", {"name": "digoxin", "status": "taking", "dose": "250 mcg", "frequency": "once daily"}),
    ],
)
def test_a_drug_is_read_with_what_stands_behind_it(text: str, expected: dict[str, str]) -> None:
    assert drugs(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("K 5.9 mmol/L", [("potassium", "5.9", "mmol/L", "high")]),
        ("Na 140 mmol/L (135-145)", [("sodium", "140", "mmol/L", "normal")]),
        ("BNP 1,240 pg/mL, was 300 pg/mL", [("bnp", "1240", "pg/mL", "high"), ("bnp", "300", "pg/mL", "high")]),
        ("Ferritin 9 ng/mL L", [("ferritin", "9", "ng/mL", "low")]),
        ("glucose 5.1", [("glucose", "5.1")]),
        ("TSH pending", []),
    ],
)
def test_a_value_has_its_unit_and_a_flag_where_one_can_be_told(text: str, expected: list[tuple[str, ...]]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seen 3/4/2024", ["2024-03-04"]),
        ("seen 14/4/2024, 3-4-2024", ["2024-03-04", "2024-04-14"]),
        ("seen 4 Mar 2024 and March 5, 2024", ["2024-03-04", "2024-03-05"]),
        ("stent in 2019", ["2019"]),
        ("DOB 3/4/1960", []),
        ("f/u 3/12, BP 120/80, 2000 units", []),
    ],
)
def test_a_date_is_as_exact_as_the_note(text: str, expected: list[str]) -> None:
    assert days(text) == expected


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.sampled_from("aK 5.9/mg;:\n(),-#?%HL2024'"), max_size=200) | st.text(max_size=200))
def test_whatever_the_text_every_field_points_into_it(text: str) -> None:
    record = read_note(text)
    assert misplaced(record, text) == []


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(read_marked(FOLDER / "tuning.txt")), st.integers(0, 400), st.integers(0, 400))
def test_any_part_of_a_note_can_be_read(note: MarkedNote, start: int, length: int) -> None:
    text = note.text[start : start + length]
    record = read_note(text)
    assert misplaced(record, text) == []
    assert all(re.search(r"\d", text[event.date.start : event.date.stop]) for event in record.timeline)


def test_a_record_outlives_json() -> None:
    record = read_note("HTN. Aspirin 81 mg daily. K 5.9 mmol/L. Seen 3/4/2024.")
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


def test_marks_are_read_as_they_were_written() -> None:
    note = read_marked(FOLDER / "tuning.txt")[2]
    assert "{" not in note.text and "#" not in note.text
    infarction = [one for one in note.fields if one.item[1] == "myocardial infarction"]
    assert {one.value for one in infarction} == {"myocardial infarction", "past"}
    assert {note.text[one.start : one.stop] for one in infarction} == {"MI"}
    counts, differences = compare(note, Record())
    assert (counts["read"], counts["right"]) == (0, 0)
    assert len(differences) == counts["there"] > 20


def test_fields_of_held_out_notes_are_read() -> None:
    figures = fields_read("held_out")
    assert figures["medical_field_f1"] >= 0.97
    assert figures["medical_field_sources"] == 1.0


def test_emergencies_are_told_from_questions() -> None:
    figures = emergencies()
    assert figures["medical_emergency_found"] >= 0.95
    assert figures["medical_emergency_false"] <= 0.03


@pytest.mark.parametrize("text", ["My chest is crushing and I sweat", "he isn't breathing"])
def test_an_emergency(text: str) -> None:
    assert is_emergency(text)
