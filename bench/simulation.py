"""What order of requests for memory costs and gives: the real agent, a thousand functions, tight memory, virtual time.

``make simulate`` prints a table for each order; ``--plot FILE`` draws it. The same seed gives the same figures.
"""

from __future__ import annotations

import argparse
import collections
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from bench.simulation_load import SIZES, Load, routes
from bench.simulation_orders import ORDERS
from bench.simulation_run import SCALING, Result, Simulation

#: Functions with fewer calls say little about fairness.
_ENOUGH_CALLS = 10


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def rows(load: Load) -> dict[str, Callable[[Result], str]]:
    """Return the rows of the report: a name, and a function that finds its figure in a run."""
    sizes = [route.memory for route in routes(load)]
    return {
        "wait p50, ms": lambda run: f"{quantile(_waits(run), 0.5) * 1000:.1f}",
        "wait p90, ms": lambda run: f"{quantile(_waits(run), 0.9) * 1000:.0f}",
        "wait p99, ms": lambda run: f"{quantile(_waits(run), 0.99) * 1000:.0f}",
        "wait max, ms": lambda run: f"{quantile(_waits(run), 1) * 1000:.0f}",
        "answered 503, %": lambda run: f"{_share(run, 503):.2f}",
        "starts per call": lambda run: f"{run.starts / run.calls:.3f}",
        "evictions": lambda run: str(run.evictions),
        "memory granted, % of total, mean": lambda run: f"{_memory(run, 1):.1f}",
        "memory of busy containers, % of total, mean": lambda run: f"{_memory(run, 2):.1f}",
        "memory, % of total, peak": lambda run: f"{100 * run.peak_mib / run.total_mib:.1f}",
        "mean wait of a function, p50, ms": lambda run: f"{quantile(_means(run), 0.5) * 1000:.1f}",
        "mean wait of a function, p90, ms": lambda run: f"{quantile(_means(run), 0.9) * 1000:.0f}",
        **{
            f"{size} MiB: mean wait, ms / 503, %": lambda run, size=size: _of_size(run, sizes, size)  # type: ignore[misc]
            for size in SIZES
        },
        "async calls left in the backlog": lambda run: str(run.backlog),
    }


def _waits(run: Result) -> list[float]:
    return sorted(outcome.waited_s for outcome in run.outcomes)


def _share(run: Result, answer: int) -> float:
    return 100 * sum(outcome.answer == answer for outcome in run.outcomes) / len(run.outcomes)


def _memory(run: Result, column: int) -> float:
    return 100 * statistics.mean(look[column] for look in run.memory) / run.total_mib


def _means(run: Result) -> list[float]:
    waits = collections.defaultdict[int, list[float]](list)
    for outcome in run.outcomes:
        waits[outcome.function].append(outcome.waited_s)
    return sorted(statistics.mean(one) for one in waits.values() if len(one) >= _ENOUGH_CALLS)


def _of_size(run: Result, sizes: list[int], size: int) -> str:
    outcomes = [outcome for outcome in run.outcomes if sizes[outcome.function] == size]
    if not outcomes:
        return "no calls"
    refused = 100 * sum(outcome.answer == 503 for outcome in outcomes) / len(outcomes)
    return f"{statistics.mean(outcome.waited_s for outcome in outcomes) * 1000:.0f} / {refused:.2f}"


def report(load: Load, runs: Sequence[Result]) -> None:
    """Print the table."""
    print(f"{load}\n{runs[0].calls} calls, {runs[0].total_mib} MiB\n")
    print("| | " + " | ".join(run.order for run in runs) + " |")
    print("|---" * (len(runs) + 1) + "|")
    for name, figure in rows(load).items():
        print(f"| {name} | " + " | ".join(figure(run) for run in runs) + " |")
    print("\n" + ", ".join(f"{run.order}: {run.real_s:.0f} s of real time" for run in runs))


def plot(load: Load, runs: Sequence[Result], file: Path) -> None:
    """Draw waits and memory."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "simulation", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, (waits, memory) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for run in runs:
        shares = [share / 200 for share in range(201)]
        ordered = _waits(run)
        waits.plot([1000 * quantile(ordered, share) for share in shares], [100 * share for share in shares])
        waits.lines[-1].set_label(run.order)
        at = [look[0] for look in run.memory]
        (line,) = memory.plot(at, [100 * look[2] / run.total_mib for look in run.memory])
        memory.plot(at, [100 * look[1] / run.total_mib for look in run.memory], ":", color=line.get_color())
    waits.set(xscale="symlog", xlabel="wait, ms", ylabel="% of calls that wait no longer")
    waits.legend(title="order", fontsize="small")
    memory.axvline(load.warm_up_s, color="grey", linewidth=0.5)
    memory.set(xlabel="s", ylabel="% of memory: busy, granted (dots)", ylim=(0, 105))
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Simulate each order and tell."""
    given = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # an overload logs nothing of interest
    load = Load(
        seed=given.seed,
        functions=given.functions,
        rate=given.rate,
        warm_up_s=given.warm_up,
        seconds=given.seconds,
        memory_share=given.memory,
        removal_s=given.removal,
    )
    runs = [
        Simulation(load, f"{order}, {scaling}", ORDERS[order], SCALING[scaling]).run()
        for order in given.orders
        for scaling in given.scaling
    ]
    report(load, runs)
    if given.plot is not None:
        plot(load, runs, given.plot)


def _arguments() -> argparse.Namespace:
    usual = Load()
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--functions", type=int, default=usual.functions)
    parser.add_argument("--rate", type=int, default=usual.rate, help="calls per second")
    parser.add_argument("--warm-up", type=float, default=usual.warm_up_s, help="seconds in which the rate grows")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="seconds that are reported")
    parser.add_argument("--memory", type=float, default=usual.memory_share, help="share of what all functions need")
    parser.add_argument("--removal", type=float, default=usual.removal_s, help="seconds that a removal takes")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--scaling", nargs="+", choices=SCALING, default=["adaptive"])
    parser.add_argument("--plot", type=Path, help="an SVG file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
