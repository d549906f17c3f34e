"""The two searches, written from the papers: slow, plain, recursive Python that the batched search must equal.

- Gumbel AlphaZero: Danihelka, Guez, Schrittwieser, Silver, "Policy improvement by planning with Gumbel", ICLR 2022
  (openreview bERaNdoegnO): sections 3 (root), 4 (policy target), 5 (interior nodes), appendix D (mixed value).
- PUCT: Silver et al., "A general reinforcement learning algorithm that masters chess, shogi, and Go through
  self-play", Science 2018 (arXiv:1712.01815), "Search" in the supplementary materials and its pseudocode.

The Gumbel search agreed with mctx 0.0.71 (float64, q mapped to [0, 1] and not rescaled) in visits, q, action, target
and root value on 30 random trees with terminal states, 1-16 considered actions, 4-40 simulations, c_scale 0.2 and 1.

All arithmetic is Python's float (64 bits). Nothing is random: noise is an argument. Conventions, which the batched
search shares:

- A node's edges are its legal actions in ascending order, and every tie goes to the lowest edge.
- Every value is in units of the game's `value_scale`, so in [-1, 1], from the point of view of the seat to act in the
  node that holds it. A value of a child is seen by its parent with its sign kept when the same seat acts in both,
  with its sign turned otherwise: seats need not alternate. A terminal state is worth the returns of the seat to act
  at its parent. (Hence two seats, zero-sum.)
- The root is evaluated before the first simulation and counts as none, so `sum(visits)` of the root is the number of
  simulations. A simulation ends in a state not seen before, which the net evaluates, or in a terminal state, which is
  backed up again at every visit. The tree is a tree: transpositions are not merged.
- Priors are the softmax of the net's logits over legal actions; "log prior" below is their log-softmax.

Choices where the papers leave one open:

- PUCT, an edge not visited (first play urgency as in KataGo, arXiv:1902.10565): the node's raw value less
  `fpu_reduction * sqrt(sum of the priors of visited edges)`, not clipped to [-1, 1]; at a root with noise
  `root_fpu_reduction` takes its place.
- PUCT, a node without visits: sqrt(N) counts as 1, so that the first visit goes to the largest prior.
- PUCT, a root with noise: the tree holds the mixed priors, (1 - fraction) * prior + fraction * noise.
- Mixed value: priors of visited edges count as at least the smallest normal float, so that 0 / 0 cannot occur.
- No simulations at all: Gumbel falls out of the formulas (target = priors, action = argmax of gumbel + log prior);
  for PUCT the target is the net's priors, without noise, and the action is their argmax.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import pyspiel

#: state -> (logits over all the game's actions, value in [-1, 1] from the point of view of the seat to act).
Evaluate = Callable[["pyspiel.State"], tuple[Sequence[float], float]]


class NodeRecord(TypedDict):
    """One node of a finished tree; lists run over its edges.

    player: the seat to act.
    raw_value: the net's value of the state, in [-1, 1], point of view of `player`.
    actions: legal actions, ascending.
    visits: N, how many simulations went through each edge.
    q: mean of the values backed up through each edge, in [-1, 1], point of view of `player`; NaN where not visited.
    prior: the prior the search used; at a PUCT root with noise the mixed one.
    """

    player: int
    raw_value: float
    actions: list[int]
    visits: list[int]
    q: list[float]
    prior: list[float]


#: A node's place in the tree: the actions that lead to it from the root; the root is `()`.
History = tuple[int, ...]


class SearchRecord(TypedDict):
    """What a finished search says.

    nodes: every evaluated node, parents first; a terminal state is an edge with visits, but no node.
    action: the chosen action (an action of the game, not an edge): Gumbel's final action; for PUCT the most visited.
    policy_target: one probability per edge of the root.
    root_value: (raw value + sum of the values backed up to the root) / (1 + simulations), point of view of the seat
      to act at the root.
    """

    nodes: dict[History, NodeRecord]
    action: int
    policy_target: list[float]
    root_value: float


@dataclass(frozen=True)
class Gumbel:
    """Settings of Gumbel AlphaZero.

    considered: how many actions sequential halving starts with, at most (m in the paper).
    c_visit, c_scale: sigma(q) = (c_visit + max_b N(b)) * c_scale * q for q in [0, 1] (paper, eq. 8).
    """

    considered: int = 16
    c_visit: float = 50.0
    c_scale: float = 0.2


@dataclass(frozen=True)
class Puct:
    """Settings of PUCT.

    c_init, c_base: c(s) = log((1 + N + c_base) / c_base) + c_init (AlphaZero, supplementary materials).
    fpu_reduction: how much less than the raw value an edge not visited is worth (see the module's docstring).
    root_fpu_reduction: the same at a root with noise.
    dirichlet_fraction: the share of noise in the priors of a root with noise (epsilon in the paper).
    """

    c_init: float = 1.25
    c_base: float = 19652.0
    fpu_reduction: float = 0.2
    root_fpu_reduction: float = 0.0
    dirichlet_fraction: float = 0.25


@dataclass
class Node:
    """A state that the net has evaluated. Lists run over edges (legal actions, ascending).

    history: the actions from the root.
    raw_value: the net's value, point of view of `player`.
    log_prior, prior: log-softmax and softmax of the net's logits over the legal actions.
    visits: N. total: W, the sum of the values backed up through each edge, point of view of `player`.
    children: edge -> node; terminal children are not among them.
    """

    state: pyspiel.State
    history: History
    player: int
    raw_value: float
    actions: list[int]
    log_prior: list[float]
    prior: list[float]
    visits: list[int]
    total: list[float]
    children: dict[int, Node] = field(default_factory=dict)


#: Which edge a simulation takes from a node.
ChooseEdge = Callable[[Node], int]


def gumbel_search(
    state: pyspiel.State,
    evaluate: Evaluate,
    value_scale: float,
    simulations: int,
    noise: Sequence[float] | None = None,
    settings: Gumbel | None = None,
) -> SearchRecord:
    """Gumbel AlphaZero from `state`, which must not be terminal.

    value_scale: the largest magnitude of the game's utilities; divides terminal returns.
    noise: one Gumbel(0, 1) sample per legal action; None is zeros (the deterministic search of evaluation games).
    """
    settings = settings or Gumbel()
    root = make_node(state.clone(), (), evaluate)
    gumbel = list(noise) if noise is not None else [0.0] * len(root.actions)
    schedule = considered_visits(min(settings.considered, len(root.actions), simulations), simulations)

    def score(edge: int, q: list[float]) -> float:
        return gumbel[edge] + root.log_prior[edge] + sigma(root, settings) * q[edge]

    def best_with_visits(visits: int) -> int:
        q = completed_q(root)
        return argmax([score(e, q) if n == visits else -math.inf for e, n in enumerate(root.visits)])

    for visits in schedule:
        simulate(root, best_with_visits(visits), lambda node: gumbel_interior(node, settings), evaluate, value_scale)
    return SearchRecord(
        nodes=records(root),
        action=root.actions[best_with_visits(max(root.visits))],
        policy_target=improved_policy(root, settings),
        root_value=root_value(root),
    )


def puct_search(
    state: pyspiel.State,
    evaluate: Evaluate,
    value_scale: float,
    simulations: int,
    noise: Sequence[float] | None = None,
    settings: Puct | None = None,
) -> SearchRecord:
    """PUCT (AlphaZero) from `state`, which must not be terminal.

    value_scale: the largest magnitude of the game's utilities; divides terminal returns.
    noise: a Dirichlet sample, one number per legal action, mixed into the root's priors; None leaves them alone.
    """
    settings = settings or Puct()
    root = make_node(state.clone(), (), evaluate)
    if noise is not None:
        share = settings.dirichlet_fraction
        root.prior = [(1.0 - share) * p + share * x for p, x in zip(root.prior, noise, strict=True)]
    root_reduction = settings.fpu_reduction if noise is None else settings.root_fpu_reduction
    for _ in range(simulations):
        edge = puct_edge(root, settings, root_reduction)
        simulate(root, edge, lambda node: puct_edge(node, settings, settings.fpu_reduction), evaluate, value_scale)
    if simulations == 0:
        target, best = [math.exp(x) for x in root.log_prior], argmax(root.log_prior)
    else:
        target, best = [n / simulations for n in root.visits], argmax(root.visits)
    return SearchRecord(
        nodes=records(root), action=root.actions[best], policy_target=target, root_value=root_value(root)
    )


# ---------------------------------------------------------------------------------------------- the tree, for both


def make_node(state: pyspiel.State, history: History, evaluate: Evaluate) -> Node:
    """Evaluates a state that is not terminal."""
    logits, value = evaluate(state)
    actions = sorted(state.legal_actions())
    log_prior = log_softmax([float(logits[action]) for action in actions])
    return Node(
        state=state,
        history=history,
        player=state.current_player(),
        raw_value=float(value),
        actions=actions,
        log_prior=log_prior,
        prior=[math.exp(x) for x in log_prior],
        visits=[0] * len(actions),
        total=[0.0] * len(actions),
    )


def simulate(node: Node, edge: int, choose: ChooseEdge, evaluate: Evaluate, value_scale: float) -> float:
    """One simulation from `node` through `edge`, below it through the edges `choose` names.

    Returns the value at its end from the point of view of `node.player`, which is also added to the edge.
    """
    if edge in node.children:
        child = node.children[edge]
        value = seen_by(node, child, simulate(child, choose(child), choose, evaluate, value_scale))
    else:
        action = node.actions[edge]
        state = node.state.child(action)
        if state.is_terminal():
            value = state.returns()[node.player] / value_scale
        else:
            child = make_node(state, (*node.history, action), evaluate)
            node.children[edge] = child
            value = seen_by(node, child, child.raw_value)
    node.visits[edge] += 1
    node.total[edge] += value
    return value


def seen_by(parent: Node, child: Node, value: float) -> float:
    """A value of `child`, from its own seat's point of view, from the point of view of the seat at `parent`."""
    return value if child.player == parent.player else -value


def root_value(root: Node) -> float:
    """The mean of the raw value and all values backed up to the root."""
    return (root.raw_value + sum(root.total)) / (1 + sum(root.visits))


def records(root: Node) -> dict[History, NodeRecord]:
    """The finished tree, parents before children, then by edge."""
    found = {
        root.history: NodeRecord(
            player=root.player,
            raw_value=root.raw_value,
            actions=list(root.actions),
            visits=list(root.visits),
            q=[w / n if n else math.nan for w, n in zip(root.total, root.visits, strict=True)],
            prior=list(root.prior),
        )
    }
    for edge in sorted(root.children):
        found.update(records(root.children[edge]))
    return found


# ------------------------------------------------------------------------------------------------- Gumbel AlphaZero


def considered_visits(considered: int, simulations: int) -> list[int]:
    """Sequential halving as a schedule (paper, section 3.2 and figure 1; the form is mctx's).

    Returns `[simulations]` ints: simulation t takes, among the edges visited exactly `schedule[t]` times so far, the
    one that scores best. Each phase visits each of its m actions max(1, simulations // (ceil(log2 considered) * m))
    times; m starts at `considered` and is halved down to 2. One considered action takes every simulation.
    """
    if considered <= 1:
        return list(range(simulations))
    phases = math.ceil(math.log2(considered))
    schedule: list[int] = []
    visits = 0
    in_phase = considered
    while len(schedule) < simulations:
        for _ in range(max(1, simulations // (phases * in_phase))):
            schedule += [visits] * in_phase
            visits += 1
        in_phase = max(2, in_phase // 2)
    return schedule[:simulations]


def sigma(node: Node, settings: Gumbel) -> float:
    """The factor in sigma(q) = (c_visit + max_b N(b)) * c_scale * q (paper, eq. 8)."""
    return (settings.c_visit + max(node.visits)) * settings.c_scale


def completed_q(node: Node) -> list[float]:
    """`[edges]`, in [0, 1]: q where visited, the mixed value v_mix elsewhere (paper, eq. 10 and appendix D, eq. 33)."""
    q = {e: (node.total[e] / n + 1.0) / 2.0 for e, n in enumerate(node.visits) if n > 0}
    mixed = (node.raw_value + 1.0) / 2.0
    if q:
        weight = {e: max(node.prior[e], sys.float_info.min) for e in q}
        mean_q = sum(weight[e] * q[e] for e in q) / sum(weight.values())
        total_visits = sum(node.visits)
        mixed = (mixed + total_visits * mean_q) / (1 + total_visits)
    return [q.get(e, mixed) for e in range(len(node.actions))]


def improved_policy(node: Node, settings: Gumbel) -> list[float]:
    """`[edges]`: softmax(log prior + sigma(completed q)), pi' in the paper (eq. 11): the policy target at the root."""
    factor = sigma(node, settings)
    return softmax([p + factor * q for p, q in zip(node.log_prior, completed_q(node), strict=True)])


def gumbel_interior(node: Node, settings: Gumbel) -> int:
    """Below the root: the edge whose share of visits lags most behind pi' (paper, section 5, eq. 14)."""
    total_visits = sum(node.visits)
    policy = improved_policy(node, settings)
    return argmax([p - n / (1 + total_visits) for p, n in zip(policy, node.visits, strict=True)])


# -------------------------------------------------------------------------------------------------------------- PUCT


def puct_edge(node: Node, settings: Puct, fpu_reduction: float) -> int:
    """argmax of Q + c(s) * P * sqrt(sum_b N(b)) / (1 + N) (AlphaZero, supplementary materials, "Search")."""
    total_visits = sum(node.visits)
    visited_prior = sum(p for p, n in zip(node.prior, node.visits, strict=True) if n > 0)
    unvisited_q = node.raw_value - fpu_reduction * math.sqrt(visited_prior)
    c = math.log((1 + total_visits + settings.c_base) / settings.c_base) + settings.c_init
    scores = []
    for prior, visits, total in zip(node.prior, node.visits, node.total, strict=True):
        q = total / visits if visits > 0 else unvisited_q
        scores.append(q + c * prior * math.sqrt(max(1, total_visits)) / (1 + visits))
    return argmax(scores)


# ---------------------------------------------------------------------------------------------------------- numbers


def argmax(values: Sequence[float]) -> int:
    """The index of the largest value; of equals the first."""
    return max(range(len(values)), key=lambda i: (values[i], -i))


def log_softmax(logits: Sequence[float]) -> list[float]:
    """log of softmax(logits)."""
    highest = max(logits)
    log_sum = math.log(sum(math.exp(x - highest) for x in logits))
    return [x - highest - log_sum for x in logits]


def softmax(logits: Sequence[float]) -> list[float]:
    """exp(logits), normalised."""
    highest = max(logits)
    weights = [math.exp(x - highest) for x in logits]
    total = sum(weights)
    return [w / total for w in weights]
