"""Draws docs/images/methods: what each method trains on all tasks, and what it trains for a new one.

`make pictures` draws them, from the table `SCHEMES`: a row a method, of parts that are drawn below.
Equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docs.svg import BOLD, FROZEN, LINE, WIDTH, Drawing, arrow, box, sheet, text
from mhrctl.config.colours import BLUE, GREEN, INK, ORANGE, PAPER, SKY

FOLDER = Path(__file__).parent / "images" / "methods"
SKILLS = (BLUE, ORANGE, GREEN, SKY)
MARGIN = 14
MODEL, FIRST, STEP = 28, 100, 70
"""Where the model's weight is drawn, the first LoRA, and how far apart LoRAs are."""
LONG, THIN = 46, 12
"""The sides of a LoRA's matrices."""
TASKS = ((0.9, 0.1, 0.4, 0.1), (0.1, 0.8, 0.1, 0.5), (0.5, 0.1, 0.9, 0.1))
"""How much three tasks use of each skill, made up."""
NEW = ((0.2, 0.2, 0.9, 0.4),)
HEADS = ((0.0, 0.3, -0.2, 0.2), (0.3, -0.3, 0.2, 0.0), (-0.2, 0.2, 0.0, 0.4), (0.2, 0.0, 0.3, -0.1))
"""By how much the heads of a skill differ from that."""
TIMES = "\N{MULTIPLICATION SIGN}"
COINS = ((1, 0, 1, 0), (0, 1, 1, 1), (1, 1, 0, 0))
"""Which skills three examples draw, made up."""

Part = Callable[[float, bool], Drawing]
"""A part of a panel: its lines, given where the panel begins and whether it is trained."""


def _outlined(*, trained: bool) -> str:
    """What is trained has a whole outline; what is kept is pale, with a broken one."""
    return f' stroke="{INK}" stroke-width="1.5"' if trained else f' stroke="{LINE}" stroke-dasharray="3 2" fill-opacity="0.4"'


def _box(x: float, y: float, width: float, height: float, fill: str, *, trained: bool) -> str:
    return box(x, y, width, height, fill, _outlined(trained=trained))


def _lora(x: float, top: float, colours: Sequence[str], trained: bool, *, thin: float = THIN, heads: int = 1) -> Drawing:
    """A LoRA: A upright, B lying; of several colours, in stripes; of several heads, in blocks."""
    part = thin / len(colours)
    for left, upper, width, height, right, down in (
        (x, top, thin, LONG, part, 0.0),
        (x + thin + 3, top, LONG - thin, thin, 0.0, part),
    ):
        yield _box(left, upper, width, height, colours[0], trained=trained)
        for place, colour in enumerate(colours[1:], 1):
            at, below = left + place * right, upper + place * down
            yield f'<rect x="{at:g}" y="{below:g}" width="{right or width:g}" height="{down or height:g}" fill="{colour}"/>'
        if len(colours) > 1:
            yield _box(left, upper, width, height, "none", trained=trained)
    for cut in range(1, heads):
        across, along = top + cut * LONG / heads, x + thin + 3 + cut * (LONG - thin) / heads
        cuts = f"M{x - 2:g} {across:g}h{thin + 4:g}M{along:g} {top - 2:g}v{thin + 4:g}"
        yield f'<path d="{cuts}" stroke="{PAPER}" stroke-width="3"/>'


def skills(top: float, trained: bool, heads: int = 1) -> Drawing:
    """The LoRAs that tasks share."""
    for place, colour in enumerate(SKILLS):
        yield from _lora(FIRST + place * STEP, top + 42, [colour], trained, heads=heads)


def blocks(top: float, trained: bool) -> Drawing:
    """The same, in blocks of heads."""
    yield from skills(top, trained=trained, heads=4)


def _weights(top: float, rows: Sequence[Sequence[float]], *, trained: bool, heads: bool) -> Drawing:
    """Rows of a routing, a cell below each skill; of several heads, a cell a head."""
    for line, row in enumerate(rows):
        for place, (colour, weight) in enumerate(zip(SKILLS, row, strict=True)):
            shares = [weight + more for more in HEADS[(place + line) % 4]] if heads else [weight]
            width = 48 / len(shares)
            for head, share in enumerate(shares):
                x, y = FIRST + place * STEP - 1 + head * width, top + 98 + 16 * line
                shade = f'fill="{colour}" fill-opacity="{min(max(share, 0.05), 1):.2f}"'
                stroke = f'stroke="{INK}"' if trained else f'stroke="{LINE}" stroke-dasharray="3 2"'
                yield f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="13" {shade} {stroke}/>'


def routing(top: float, trained: bool) -> Drawing:
    """The routing of three tasks."""
    yield text(MODEL, top + 109, "a row a")
    yield text(MODEL, top + 126, "task")
    yield from _weights(top, TASKS, trained=trained, heads=False)


def routing_of_heads(top: float, trained: bool) -> Drawing:
    """The routing of three tasks, of each head."""
    yield text(MODEL, top + 109, "a row a")
    yield text(MODEL, top + 126, "task")
    yield from _weights(top, TASKS, trained=trained, heads=True)


def new_row(top: float, trained: bool) -> Drawing:
    """The routing of a new task."""
    yield text(MODEL, top + 109, "new row")
    yield from _weights(top, NEW, trained=trained, heads=False)


def new_row_of_heads(top: float, trained: bool) -> Drawing:
    """The routing of a new task, of each head."""
    yield text(MODEL, top + 109, "new row")
    yield from _weights(top, NEW, trained=trained, heads=True)


def coins(top: float, trained: bool) -> Drawing:  # noqa: ARG001 - nobody trains a toss
    """Which skills three examples draw."""
    yield text(MODEL, top + 109, "draws of")
    yield text(MODEL, top + 126, "examples")
    yield from _weights(top, COINS, trained=False, heads=False)


def lora(top: float, trained: bool) -> Drawing:
    """One LoRA."""
    yield from _lora(FIRST, top + 42, [BLUE], trained)


def big_lora(top: float, trained: bool) -> Drawing:
    """One LoRA of a larger rank."""
    yield from _lora(FIRST, top + 42, [BLUE], trained, thin=22)
    yield text(FIRST + 64, top + 70, "rank 16")


def average(top: float, trained: bool) -> Drawing:
    """One LoRA, the mean of the skills."""
    yield from _lora(FIRST, top + 42, SKILLS, trained)
    yield text(FIRST + 64, top + 70, "the average of the skills")


def _made(top: float, trained: bool, first: str, second: str) -> Drawing:
    """One LoRA, made of two that were chosen."""
    yield from _lora(FIRST, top + 42, [ORANGE, GREEN], trained)
    yield text(FIRST + 64, top + 62, first)
    yield text(FIRST + 64, top + 79, second)


def soup(top: float, trained: bool) -> Drawing:
    """One LoRA, the mean of two that were chosen."""
    yield from _made(top, trained, "the average of the LoRAs", "of the most similar tasks")


def added_up(top: float, trained: bool) -> Drawing:
    """The sum of updates."""
    yield from _made(top, trained, "the sum of the updates", "of the most similar tasks")


def elected(top: float, trained: bool) -> Drawing:
    """Large entries, of the elected sign."""
    yield from _made(top, trained, "large entries, of the sign", "that most of them have")


def dropped(top: float, trained: bool) -> Drawing:
    """A sum after entries were dropped."""
    yield from _made(top, trained, "entries dropped at random,", "the others added up")


def dropped_and_elected(top: float, trained: bool) -> Drawing:
    """Entries of the elected sign, after others were dropped."""
    yield from _made(top, trained, "entries dropped at random,", "the others by their signs")


def in_one_basis(top: float, trained: bool) -> Drawing:
    """Large entries of the elected sign, in a common basis."""
    yield from _made(top, trained, "by their signs, in a basis", "that all of them share")


def searched(top: float, trained: bool) -> Drawing:
    """Weighted sums."""
    yield from _made(top, trained, "weighted sums, by weights", "that were searched for")


def _mixed(top: float, trained: bool, first: str, second: str) -> Drawing:
    """Two of the LoRAs, side by side, for a query."""
    yield from _lora(FIRST, top + 42, [ORANGE], trained)
    yield text(FIRST + 54, top + 70, "+")
    yield from _lora(FIRST + STEP, top + 42, [GREEN], trained)
    yield text(FIRST + 2 * STEP - 4, top + 62, first)
    yield text(FIRST + 2 * STEP - 4, top + 79, second)


def mixed_by_tasks(top: float, trained: bool) -> Drawing:
    """The LoRAs that are best on the tasks nearest to a query."""
    yield from _mixed(top, trained, "for each query, the best", "on the tasks nearest to it")


def mixed_by_samples(top: float, trained: bool) -> Drawing:
    """The LoRAs whose samples are nearest to a query."""
    yield from _mixed(top, trained, "for each query, those with", "the samples nearest to it")


def matched_lora(top: float, trained: bool) -> Drawing:
    """One LoRA as large as all skills."""
    yield from _lora(FIRST, top + 42, [BLUE], trained, thin=4 * THIN / 2)
    yield text(FIRST + 64, top + 70, "as large as all skills")


def each_its_lora(top: float, trained: bool) -> Drawing:
    """A LoRA a task."""
    yield from skills(top, trained)
    for place in range(len(SKILLS)):
        yield text(FIRST + place * STEP, top + 109, f"task {place + 1}")


def vectors(top: float, trained: bool) -> Drawing:
    """Vectors that multiply what layers give."""
    for place, name in enumerate(("k", "v", "wi_1")):
        x = FIRST + place * 50
        yield _box(x, top + 42, 9, LONG, BLUE, trained=trained)
        yield text(x - 2, top + 108, name)
    yield text(FIRST + 150, top + 62, "multiply what")
    yield text(FIRST + 150, top + 79, "the layers give")


def choices(top: float, trained: bool) -> Drawing:
    """The same, with losses over the answers that a task offers."""
    yield from vectors(top, trained)
    yield text(FIRST, top + 132, "right choice up, wrong ones down")


def weights(top: float, trained: bool) -> Drawing:
    """All weights of the model."""
    yield _box(MODEL, top + 42, LONG, LONG, BLUE, trained=trained)
    yield text(MODEL + 16, top + 70, "W", f'{BOLD} fill="{PAPER}"')
    yield text(FIRST, top + 70, "all weights")


def tuned_weights(top: float, trained: bool) -> Drawing:
    """The weights that were tuned, and a LoRA that is new."""
    yield _box(MODEL, top + 42, LONG, LONG, BLUE, trained=False)
    yield text(MODEL + 16, top + 70, "W", BOLD)
    yield text(MODEL + 54, top + 70, "+")
    yield from _lora(FIRST, top + 42, [GREEN], trained)
    yield text(FIRST + 64, top + 70, "a new LoRA")


def copies(top: float, trained: bool) -> Drawing:
    """Copies of one LoRA, each of which may change a part of B."""
    part = (LONG - THIN) / 4
    for place, colour in enumerate(SKILLS):
        x = FIRST + place * STEP
        yield _box(x, top + 42, THIN, LONG, INK, trained=trained)
        yield _box(x + THIN + 3, top + 42, LONG - THIN, THIN, FROZEN, trained=False)
        yield _box(x + THIN + 3 + place * part, top + 42, part, THIN, colour, trained=trained)
        yield text(x, top + 109, f"copy {place + 1}")


def mean_of_copies(top: float, trained: bool) -> Drawing:
    """One LoRA, the mean of the copies."""
    part = (LONG - THIN) / 4
    yield _box(FIRST, top + 42, THIN, LONG, INK, trained=trained)
    for place, colour in enumerate(SKILLS):
        yield _box(FIRST + THIN + 3 + place * part, top + 42, part, THIN, colour, trained=trained)
    yield text(FIRST + 64, top + 70, "the mean of the copies")


def drawn_copies(top: float, trained: bool) -> Drawing:
    """Copies of A, and one B."""
    for place, colour in enumerate(SKILLS):
        yield _box(FIRST + place * STEP / 2, top + 42, THIN, LONG, colour, trained=trained)
    yield _box(FIRST + 2 * STEP, top + 42, LONG, THIN, INK, trained=trained)
    yield text(FIRST, top + 109, "copies of A")
    yield text(FIRST + 2 * STEP, top + 109, "one B")


def mean_of_draws(top: float, trained: bool) -> Drawing:
    """One LoRA, the mean of the copies."""
    part = THIN / len(SKILLS)
    for place, colour in enumerate(SKILLS):
        yield _box(FIRST + place * part, top + 42, part, LONG, colour, trained=trained)
    yield _box(FIRST + THIN + 3, top + 42, LONG - THIN, THIN, INK, trained=trained)
    yield text(FIRST + 64, top + 70, "the mean of the copies")


def aligned_lora(top: float, trained: bool) -> Drawing:
    """One LoRA as large as all skills, with a distance in its loss."""
    yield from _lora(FIRST, top + 42, [BLUE], trained, thin=4 * THIN / 2)
    yield text(FIRST + 64, top + 62, "as large as all skills; the tasks")
    yield text(FIRST + 64, top + 79, "of a batch are drawn together")


def one_down(top: float, trained: bool) -> Drawing:
    """One A, and several B."""
    yield _box(FIRST, top + 42, THIN, LONG, INK, trained=trained)
    for place, colour in enumerate(SKILLS):
        yield _box(FIRST + THIN + 3 + place * STEP, top + 42, LONG - THIN, THIN, colour, trained=trained)
    yield text(FIRST + THIN + 10, top + 78, "A is turned, and B mixed, by task")


def private_skills(top: float, trained: bool) -> Drawing:
    """A LoRA of each of three tasks alone."""
    yield text(MODEL, top + 180, "private")
    for place in range(len(TASKS)):
        yield from _lora(FIRST + place * STEP, top + 155, [INK], trained)
        yield text(FIRST + place * STEP, top + 222, f"task {place + 1}")


def new_private_skill(top: float, trained: bool) -> Drawing:
    """A LoRA of the new task alone."""
    yield text(MODEL, top + 150, "private")
    yield from _lora(FIRST, top + 125, [INK], trained)
    yield text(FIRST + 64, top + 153, "new")


def shared_a(top: float, trained: bool) -> Drawing:
    """LoRAs with one A, and a router that weighs them for each token."""
    for place, colour in enumerate(SKILLS):
        x = FIRST + place * STEP
        yield _box(x + THIN + 3, top + 42, LONG - THIN, THIN, colour, trained=trained)
        yield _box(x, top + 98, 48, 13, colour, trained=trained)
    yield _box(FIRST, top + 42, THIN, LONG, INK, trained=trained)
    yield text(MODEL, top + 109, "router")
    yield text(FIRST + THIN + 6, top + 76, "one A, and a B each")


def routed_prompts(top: float, trained: bool) -> Drawing:
    """LoRAs, and a router that weighs them for each prompt."""
    yield from skills(top, trained=trained)
    for place, colour in enumerate(SKILLS):
        yield _box(FIRST + place * STEP, top + 98, 48, 13, colour, trained=trained)
    yield text(MODEL, top + 109, "router")


def routed_tokens(top: float, trained: bool) -> Drawing:  # noqa: ARG001 - nobody trains anything of it
    """The LoRAs of a pool, and how three tokens are sent to them."""
    yield from skills(top, trained=False)
    yield text(MODEL, top + 109, "a row a")
    yield text(MODEL, top + 126, "token")
    yield from _weights(top, COINS, trained=False, heads=False)


HIGH, ROWS, NAMES, CHOICES = 100, 150, 120, 142
HEIGHTS: Mapping[Part, int] = {
    routing: ROWS,
    routing_of_heads: ROWS,
    coins: ROWS,
    new_row: NAMES,
    new_row_of_heads: NAMES,
    each_its_lora: NAMES,
    copies: NAMES,
    drawn_copies: NAMES,
    private_skills: 232,
    new_private_skill: 182,
    shared_a: NAMES,
    routed_prompts: NAMES,
    routed_tokens: ROWS,
    vectors: NAMES,
    choices: CHOICES,
}
"""How high a panel is that has such a part; `HIGH` with any other."""


@dataclass(frozen=True)
class Scheme:
    """A scheme is what a method does in two panels.

    Attributes:
        title: what a reader hears who does not see it.
        before: the parts that are trained on all tasks.
        after: the parts that are trained for a new task.
        kept: those that it needs besides and leaves as they are.
        sign: what is between the weights of the model, which stay as they are, and these; none where they do not stay.
    """

    title: str
    before: Sequence[Part]
    after: Sequence[Part]
    kept: Sequence[Part] = ()
    sign: str = "+"


SCHEMES = {
    "lora": Scheme("One LoRA is trained on all tasks and tuned for a new one", [lora], [lora]),
    "lora_big": Scheme("One LoRA of rank 16 is trained on all tasks and tuned for a new one", [big_lora], [big_lora]),
    "ia3": Scheme("Vectors are trained on all tasks and tuned for a new one", [vectors], [vectors], sign=TIMES),
    "tfew": Scheme("Vectors are trained on all tasks and tuned with losses over choices", [vectors], [choices], sign=TIMES),
    "adapter_soup": Scheme("Each task has a LoRA; those of similar tasks are averaged and tuned", [each_its_lora], [soup]),
    "poly": Scheme("Skills and a routing are trained; a new task tunes both", [skills, routing], [skills, new_row]),
    "poly_z": Scheme("Skills and a routing are trained; a new task tunes its row", [skills, routing], [new_row], [skills]),
    "poly_mu": Scheme("Skills and a routing are trained; a new task tunes the average", [skills, routing], [average]),
    "mhr": Scheme(
        "Skills and a routing of each head are trained; a new task tunes both",
        [blocks, routing_of_heads],
        [blocks, new_row_of_heads],
    ),
    "mhr_z": Scheme(
        "Skills and a routing of each head are trained; a new task tunes its row",
        [blocks, routing_of_heads],
        [new_row_of_heads],
        [blocks],
    ),
    "mhr_mu": Scheme(
        "Skills and a routing of each head are trained; a new task tunes the average", [blocks, routing_of_heads], [average]
    ),
    "random_mu": Scheme("Skills are mixed at random; a new task tunes their average", [skills, coins], [average]),
    "full_ft": Scheme("All weights are tuned on all tasks, and for a new one", [weights], [weights], sign=""),
    "full_ft_then_lora": Scheme(
        "All weights are tuned on all tasks; a new task tunes a new LoRA", [weights], [tuned_weights], sign=""
    ),
    "lora_hub": Scheme("Each task has a LoRA; weighted sums of some are searched for, and tuned", [each_its_lora], [searched]),
    "task_arithmetic": Scheme(
        "Each task has a LoRA; the sum of the updates of similar tasks is tuned", [each_its_lora], [added_up]
    ),
    "ties": Scheme(
        "Each task has a LoRA; large entries of the elected sign are averaged and tuned", [each_its_lora], [elected]
    ),
    "dare_linear": Scheme(
        "Each task has a LoRA; entries are dropped at random, and the sum is tuned", [each_its_lora], [dropped]
    ),
    "dare_ties": Scheme(
        "Each task has a LoRA; entries are dropped, those of the elected sign averaged",
        [each_its_lora],
        [dropped_and_elected],
    ),
    "knots_ties": Scheme("Each task has a LoRA; they are merged in a common basis, and tuned", [each_its_lora], [in_one_basis]),
    "lorauter": Scheme(
        "Each task has a LoRA; those of the tasks nearest to a query answer it", [each_its_lora], [], [mixed_by_tasks]
    ),
    "lora_retriever": Scheme(
        "Each task has a LoRA; those with the samples nearest to a query answer it", [each_its_lora], [], [mixed_by_samples]
    ),
    "lora_matched": Scheme(
        "One LoRA as large as all skills is trained on all tasks and tuned for a new one", [matched_lora], [matched_lora]
    ),
    "hydra_lora": Scheme(
        "LoRAs with one A and a router of tokens are trained on all tasks and tuned for a new one", [shared_a], [shared_a]
    ),
    "smear": Scheme(
        "LoRAs and a router that averages them for each prompt are trained on all tasks and tuned for a new one",
        [routed_prompts],
        [routed_prompts],
    ),
    "arrow": Scheme("Each task has a LoRA; layers send each token to some of them", [each_its_lora], [], [routed_tokens]),
    "mosa": Scheme("Copies of one LoRA train their own entries; a new task tunes their mean", [copies], [mean_of_copies]),
    "adamix": Scheme("Steps draw copies of one LoRA; a new task tunes their mean", [drawn_copies], [mean_of_draws]),
    "align_lora": Scheme(
        "One LoRA as large as all skills draws tasks together; a new task tunes it", [aligned_lora], [matched_lora]
    ),
    "mtl_lora": Scheme(
        "One A and several B are trained, which each task turns and mixes; a new task tunes all",
        [one_down, routing],
        [one_down, new_row],
    ),
    "c_poly": Scheme(
        "Skills, a routing and private skills are trained; a new task brings its own and tunes all",
        [skills, routing, private_skills],
        [skills, new_row, new_private_skill],
    ),
}
"""{method: its scheme}, of every row of the methods table."""


def drawn(scheme: Scheme) -> str:
    """Return a scheme as SVG."""
    middle = 8 + _height(scheme.before)
    below = middle + 18 + _height([*scheme.after, *scheme.kept])
    lines = [
        *_panel(8, "on all tasks", scheme.before, (), scheme.sign),
        arrow(f"M{WIDTH / 2:g} {middle}v14", "down"),
        *_panel(middle + 18, "for a new task", scheme.after, scheme.kept, scheme.sign),
        *_legend(below + 12),
    ]
    return sheet(scheme.title, below + 42, lines)


def _height(parts: Sequence[Part]) -> int:
    return max(HEIGHTS.get(part, HIGH) for part in parts)


def _panel(top: float, title: str, parts: Sequence[Part], kept: Sequence[Part], sign: str) -> Drawing:
    yield text(MARGIN, top + 24, title, BOLD)
    if sign:
        yield _box(MODEL, top + 42, LONG, LONG, FROZEN, trained=False)
        yield text(MODEL + 16, top + 70, "W", BOLD)
        yield text(MODEL + 54, top + 70, sign)
    for part in kept:
        yield from part(top, False)
    for part in parts:
        yield from part(top, True)


def _legend(top: float) -> Drawing:
    yield _box(MARGIN, top, 16, 16, LINE, trained=True)
    yield text(MARGIN + 24, top + 13, "trained")
    yield _box(MARGIN + 110, top, 16, 16, LINE, trained=False)
    yield text(MARGIN + 134, top + 13, "kept as it is")


def draw(folder: Path = FOLDER) -> None:
    """Draw all schemes into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scheme in SCHEMES.items():
        (folder / f"{name}.svg").write_text(drawn(scheme), encoding="utf-8")


if __name__ == "__main__":
    draw()
