"""A long history of our own making: chatter of every day, and facts that are told once and asked for in other words."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from kernos.syscalls.model import Message

CHARACTERS_PER_TOKEN: Final = 4.2
"""Of this chatter, as the small model counts it."""
LONG_CHARACTERS_PER_TOKEN: Final = 4.3
"""The same in long messages."""


class Fact(NamedTuple):
    """Something that is told, and how it is asked for later."""

    told: str
    question: str


FACTS: Final = tuple(
    Fact(*told_and_asked)
    for told_and_asked in (
        ("My sister Clara adopted a grey kitten from the shelter.", "Which animal lives with my sibling?"),
        ("I can't eat peanuts, they make my throat swell up.", "Is there any food I have to avoid because of an allergy?"),
        ("We got married on a beach in Portugal.", "Where did our wedding take place?"),
        ("My father drove a tram for thirty years.", "What did my dad do for a living?"),
        ("The spare key is under the blue flowerpot.", "How can somebody get into the house when I am away?"),
        ("I broke my left wrist skating last winter.", "Which injury did I have, and how did it happen?"),
        ("Our daughter wants to become a marine biologist.", "What career does our child dream of?"),
        ("I play the cello in a small orchestra on Thursdays.", "Which musical instrument do I practise?"),
        ("The car's gearbox gave up near Salzburg.", "Where did the vehicle break down?"),
        ("My grandmother left me a ring with a green stone.", "Which piece of jewellery did I inherit?"),
        ("The Wi-Fi password is the name of our first dog, Bruno.", "How do guests log in to the internet at our place?"),
        ("I stopped smoking when our son was born.", "When did I give up cigarettes?"),
        ("Tobias owes me two hundred euros for the concert tickets.", "Who still has to pay back money to me?"),
        ("My flight to Oslo leaves at six in the morning.", "At what time do I have to be on the plane to Norway?"),
        ("The doctor put me on tablets against high blood pressure.", "Which medication do I take?"),
        ("I'm colour-blind, red and green look the same to me.", "Is there something wrong with my eyesight?"),
        ("Our neighbour Mr Okafor waters the tomatoes while we travel.", "Who looks after the vegetables during our holidays?"),
        ("I wrote my thesis about medieval bridges.", "What was the subject of my degree paper?"),
        ("The landlord is raising the rent by eighty euros in March.", "How much more will the flat cost next spring?"),
        ("My brother was stung by a jellyfish in Croatia.", "What happened to my brother in the sea?"),
        ("We keep bees on the roof of the office.", "Are there any insects at the workplace?"),
        ("I learned to swim only when I was forty.", "At what age did I become able to cross a pool?"),
        ("Aunt Henrietta's birthday is on the last day of February.", "When should I congratulate my aunt?"),
        ("The recipe needs a pinch of cardamom, that is the secret.", "Which spice makes the dish special?"),
        ("I sold my motorbike to a student from Lyon.", "Who bought my two-wheeler?"),
        ("Our cellar was flooded in the storm and the books are ruined.", "What damage did the heavy rain do at home?"),
        ("My boss speaks fluent Japanese.", "Which foreign language is my manager good at?"),
        ("I'm afraid of heights since the ladder accident.", "What am I scared of?"),
        ("The twins started school in September.", "When did the children begin first grade?"),
        ("I collect stamps with lighthouses on them.", "What is my hobby?"),
        ("My cousin runs a bakery in Antwerp.", "Which relative sells bread, and in what city?"),
        ("The dentist pulled out a wisdom tooth on Monday.", "What was done to my mouth?"),
        ("Our anniversary dinner was at an Ethiopian restaurant.", "What kind of cuisine did we have when we celebrated being together?"),
        ("I always get seasick, even on a ferry.", "How do I feel aboard ships?"),
        ("The painting over the sofa was made by my uncle Leonid.", "Who is the artist of the picture in the living room?"),
        ("My contract ends in June and will not be renewed.", "Until when do I have a job?"),
        ("We called the puppy Sergeant because he marches.", "What is the little dog's name, and why?"),
        ("I donate blood every three months.", "What do I do regularly to help hospitals?"),
        ("The password for the safe is my mother's old phone number.", "How is the strongbox opened?"),
        ("Ingrid moved to New Zealand to grow kiwis.", "Which friend emigrated to become a fruit farmer?"),
        ("I twisted my knee and missed the marathon.", "Why did I not take part in the long race?"),
        ("My favourite tea is smoky Lapsang from China.", "Which hot drink do I like best?"),
        ("The train to Prague was cancelled so we hitchhiked.", "How did we get to the Czech capital in the end?"),
        ("Our son is left-handed and needs special scissors.", "Which tool must be different for the boy?"),
        ("I once met the prime minister in a lift.", "Which politician did I run into?"),
        ("My laptop was stolen from the library.", "What did a thief take from me, and where?"),
        ("Grandpa's farm had eleven goats and a blind donkey.", "Which livestock did my grandfather keep?"),
        ("I volunteer as a firefighter in our village.", "What do I do in my free time when there is an emergency?"),
        ("The museum opens only on the first Sunday of the month.", "When can we see the exhibition?"),
        ("Maryam is expecting a baby girl in the autumn.", "Who is pregnant?"),
    )
)

_WHO: Final = ("Paul", "Nadia", "the man from upstairs", "Greta", "my colleague Sven", "Lucy", "the postwoman", "Ahmed", "old Mrs Lind")
_SAID: Final = ("told me that", "mentioned again that", "was sure that", "complained that", "laughed because", "found it odd that")
_WHAT: Final = (
    "the bus was late", "the coffee machine is broken", "the garden looks tired", "the lift smells of paint", "nobody reads the minutes",
    "the market had no apples", "the heating makes a noise", "the match ended in a draw", "the bridge is closed for repairs",
    "the cinema shows only sequels", "the dog next door barks at night", "the new chairs are too low", "his soup was cold",
    "the printer wants a new cartridge", "the street was full of leaves", "the choir has a new conductor", "the shop closes earlier now",
    "her phone needs charging twice a day", "the window does not shut", "the cake fell apart", "the cat slept on the keyboard",
    "the meeting could have been a letter", "the paint took two days to dry", "the baker is on holiday", "the water was too cold to swim",
)  # fmt: skip
_THEN: Final = (
    "Then we went for a walk along the river.", "I had to think of last summer.", "We will see how it goes next week.",
    "It rained most of the afternoon.", "I made some notes and went to bed early.", "Nothing else happened on that day.",
    "In the evening we cooked something simple.", "The radio played old songs.", "I answered a few letters and tidied the desk.",
    "At noon we had sandwiches in the park.", "The report is still not finished.", "I should call them back tomorrow.",
    "We played cards until it got dark.", "The trees are turning yellow already.", "The trip to the lake was put off again.",
)  # fmt: skip
_REPLIES: Final = (
    "I see. And what did you say to that?", "That sounds like a long day.", "Well, there are worse things.", "Good to know, thank you.",
    "Would you like me to remind you of it?", "I would not worry about it.", "How did it go on from there?", "Let me know if it changes.",
)  # fmt: skip


def history(facts: Sequence[Fact], tokens: int, *, hidden: bool = False, seed: int = 4) -> list[Message]:
    """A history of about so many tokens. The facts lie anywhere in its first nine tenths.

    Each is a message of its own; if they are `hidden`, a sentence among others in messages of 50 to 200 words.
    """
    chance = random.Random(seed)
    messages, size, per_token = list[Message](), 0.0, LONG_CHARACTERS_PER_TOKEN if hidden else CHARACTERS_PER_TOKEN
    while size < tokens:
        told = " ".join(_long(chance)) if hidden else _chatter(chance)
        messages += [Message("user", told), Message("assistant", f"{chance.choice(_REPLIES)} {chance.choice(_THEN)}")]
        size += sum(len(message.text) / per_token for message in messages[-2:])
    places = sorted(chance.sample(range(len(messages) * 9 // 20), len(facts)), reverse=True)
    for place, fact in zip(places, facts, strict=True):
        around = _long(chance) if hidden else []
        around.insert(chance.randint(0, len(around)), fact.told)
        messages[2 * place] = Message("user", " ".join(around))
    return messages


def _long(chance: random.Random) -> list[str]:
    """Chatter of 50 to 200 words, as its parts."""
    parts, words = list[str](), chance.randint(50, 200)
    while sum(len(part.split()) for part in parts) < words:
        parts.append(_chatter(chance))
    return parts


def _chatter(chance: random.Random) -> str:
    said = " ".join(f"{chance.choice(_WHO)} {chance.choice(_SAID)} {chance.choice(_WHAT)}." for _ in range(chance.randint(1, 3)))
    return f"{said[0].upper()}{said[1:]} {chance.choice(_THEN)}"
