"""Large studies by successive halving: declared first, ranked without the held-out domains, confirmed once."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..autoplan import resolved
from ..data.cohort import Cohort
from ..errors import OptionError, RunError, SplitError
from ..metrics.unlabelled import RULES
from ..names import choose
from ..recipe import Recipe
from ..train import Trainer
from ..versions import versions
from .cell import jobs, status
from .declare import Declaration, require_once, with_references
from .engines import require as require_engine
from .gap import SUBJECTS
from .grid import GridProgress
from .rules import (
    FILE,
    KINDS,
    Candidate,
    Halving,
    Rung,
    anchors_of,
    candidates_of,
    confirmed,
    cost_of,
    require_sources,
    rule_of,
)
from .run import (
    budget_of,
    carry_out,
    checked,
    gather,
    require_domains,
    require_numbers,
    task_of,
    words_of,
)
from .rungs import (
    RESULTS,
    Place,
    Results,
    alone,
    cohort_of,
    declared_rung,
    finalists_of,
    folder_of,
    placed,
    require_ranked_fairly,
)

__all__ = ["HalvingProgress", "Rung", "halve"]


@dataclass(frozen=True)
class HalvingProgress:
    """Where a study by halving stands.

    Args:
        stage: "rung 1, generalisation" or "confirmation".
        rows: Rows that are trained in it.
        done: Trainings of all stages that ended, of `total` at most.
        seconds_left: Until the end at most, with this number of workers; NaN where budgets are in steps.
        grid: Of this stage.
    """

    stage: str
    rows: int
    done: int
    total: int
    seconds_left: float
    grid: GridProgress


def halve(
    cohort: Path,
    rows: Sequence[Recipe],
    out: Path,
    *,
    held_out: Sequence[str],
    rungs: Sequence[Rung],
    keep: float = 1 / 3,
    finalists: int = 6,
    families: Mapping[str, str] | None = None,
    scoring: str = RULES[0],
    domain: str = "site",
    sources: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 3,
    trainer: Trainer | None = None,
    plan: dict[str, Any] | None = None,
    workers: int | None = None,
    threads: int = 1,
    tolerance_mm: float | dict[str, float] = 2.0,
    validation: float = 0.2,
    fraction: float = 1.0,
    margin: float = 0.0,
    lesions: Sequence[str] = (),
    gap_subjects: int = SUBJECTS,
    name: str | None = None,
    command: str = "",
    progress: Callable[[HalvingProgress], None] | None = None,
    tell: Callable[[str], None] = lambda words: None,
    estimate: bool = True,
    engine: str = "local",
    cluster: dict[str, Any] | None = None,
) -> Path:
    """Many rows, of which rungs keep a third each, and a confirmation of the last ones; returns the study's folder.

    `out/halving.json` is written before the first run and never changed. Rungs are studies in `out/rungs`; the
    confirmation is an ordinary study in `out` itself. The same call goes on where an interrupted one stopped.

    Rungs read development domains only: their cohort, a table of their own, does not hold the others. Rows that use
    unlabelled images of the held-out domain are ranked among themselves, by a rule that reads no label of it.

    Paper:
        Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS
        2016, https://arxiv.org/abs/1502.07943. Here budgets of rungs are given rather than doubled, a third and not
        half of the rows is kept, by default, trainings start anew in each rung, and the last rows are not chosen
        from but tested, on domains and with seeds that no rung saw.

    Args:
        cohort: Path of the table.
        rows: Recipes that compete; `erm` with each preset and the references are added in the confirmation.
        out: Folder of the study.
        held_out: Domains of the confirmation; at least 2 others must be left.
        rungs: Budget, seeds and inner held-out domains of each.
        keep: Share of each kind (generalisation, adaptation) that a rung keeps, at least one row.
        finalists: Most rows that are confirmed: the best of each family.
        families: Family by row; the method's name where not given.
        scoring: Rule that ranks adaptation, of `metrics.unlabelled.RULES`.
        seeds: Of the confirmation: how many, or which; none may be a rung's.
        trainer: Budget of the confirmation; rungs replace its seconds or steps.
        progress: Called a few times a second while jobs run.

    The others are as in `study`.

    Raises:
        RunError: If `out` holds another study, or every row failed.
        SplitError: For domains that cannot be held out.
        MethodError: For a row whose method needs more training domains than rungs leave it.
        OptionError: For a number outside its range.
    """
    require_numbers(
        finalists=finalists, workers=workers, threads=threads, tolerance_mm=tolerance_mm, margin=margin,
        rungs=len(rungs), rows=len(rows), gap_subjects=gap_subjects,
    )  # fmt: skip
    if not 0 < keep <= 1:
        raise OptionError(f"keep is a share above 0 and up to 1, got {keep}")
    require_engine(engine, **(cluster or {}))
    table = Cohort.read(cohort, domain=domain)
    halving = declared(
        table, cohort, rows, out,
        held_out=held_out, rungs=rungs, keep=keep, finalists=finalists, families=families, scoring=scoring,
        sources=sources, seeds=seeds, trainer=trainer, plan=plan, threads=threads, tolerance_mm=tolerance_mm,
        validation=validation, fraction=fraction, margin=margin, lesions=lesions, name=name, command=command,
        gap_subjects=gap_subjects,
    )  # fmt: skip
    halving = begun(halving, table, out, tell)
    course = Course(
        halving, table, Path(cohort), out, progress, tell,
        {"workers": workers, "tell": tell, "engine": engine, "cluster": cluster}, estimate,
    )  # fmt: skip
    results = course.rungs()
    course.confirmation(results)
    return out


def declared(
    table: Cohort,
    path: Path,
    rows: Sequence[Recipe],
    out: Path,
    *,
    held_out: Sequence[str],
    rungs: Sequence[Rung],
    families: Mapping[str, str] | None,
    sources: Sequence[str] | None,
    seeds: int | Sequence[int],
    trainer: Trainer | None,
    plan: dict[str, Any] | None,
    lesions: Sequence[str],
    name: str | None,
    scoring: str,
    **others: Any,
) -> Halving:
    """Everything resolved, and what can be found wrong found.

    Raises:
        ShiftproofError: As `halve`.
    """
    choose(scoring, RULES, "rule for selection without labels")
    require_domains(table, held_out, sources)
    development = [d for d in (sources or table.domains) if d not in held_out]
    if not held_out or len(development) < 2:
        raise SplitError(
            f"rungs hold out one development domain after the other and need at least 2 of them, got "
            f"{', '.join(development) if held_out else 'none'}; hold out fewer of {', '.join(table.domains)}"
            + ("" if held_out else ", and name them: --hold-out D")
        )
    rungs = [dataclasses.replace(r, held_out=list(r.held_out or development), seeds=list(r.seeds)) for r in rungs]
    strange = sorted({d for rung in rungs for d in rung.held_out} - set(development))
    if strange:
        raise SplitError(f"rungs hold out domains of {', '.join(development)}, got {', '.join(strange)}")
    used = {seed for rung in rungs for seed in rung.seeds}
    pinned = [row.pinned() for row in rows]
    candidates = candidates_of(pinned, dict(families or {}))
    require_sources(candidates, development)
    halving = Halving(
        name=name or out.name,
        cohort=os.fspath(Path(path).resolve()),
        cohort_hash=table.hash(),
        domain_column=table.domain,
        domains=table.domains,
        held_out=list(held_out),
        development=development,
        candidates=candidates,
        rungs=rungs,
        scoring=scoring,
        seeds=fresh(seeds, used),
        anchors=anchors_of(pinned),
        budget=budget_of(trainer or Trainer()),
        sources=list(sources or []),
        plan=resolved(plan, [c.recipe for c in candidates], trainer or Trainer(), len(table.domains)),
        lesions=list(lesions),
        task=task_of(table),
        versions=versions(),
        **others,
    )
    return dataclasses.replace(halving, cost=cost_of(halving))


def fresh(seeds: int | Sequence[int], used: set[int]) -> list[int]:
    """Seeds that no rung has used: the first ones, or those given.

    Raises:
        OptionError: If none is asked for, or a given one is a rung's.
    """
    if isinstance(seeds, int):
        require_numbers(seeds=seeds)
        return [s for s in range(seeds + len(used)) if s not in used][:seeds]
    require_once("a seed counts once", seeds)
    both = sorted(used & set(seeds))
    if both or not seeds:
        raise OptionError(f"the confirmation needs fresh seeds, got {both or 'none'}, which rungs use: {sorted(used)}")
    return list(seeds)


def begun(halving: Halving, table: Cohort, out: Path, tell: Callable[[str], None]) -> Halving:
    """Writes the declaration, once everything in it is found to be sound, or finds the same one there.

    Raises:
        RunError: If `out` holds another study.
        ShiftproofError: For what cannot be divided, planned or built; nothing is written then.
    """
    if (out / FILE).exists():
        found = Halving.load(out)
        halving = dataclasses.replace(halving, primary=found.primary)
        halving.compare(found)
        tell(f"continuing the study by halving in {out}")
        return dataclasses.replace(halving, rule=found.rule, cost=found.cost, command=found.command)
    if (out / "study.json").exists():
        raise RunError(f"{out} holds a study without halving; choose another --out")
    if (out / RESULTS).exists() or (out / "rungs").exists():
        raise RunError(
            f"{out} holds rungs of a study by halving, but not its declaration ({FILE}); restore it, or choose another "
            "--out: rungs of two declarations must not mix"
        )
    if halving.of("adaptation") and table.task == "regression":
        raise OptionError(
            f"{halving.of('adaptation')[0].recipe.name} cannot be ranked without labels: {halving.scoring} reads "
            "probabilities, and a regression has none; leave out rows with a target"
        )
    every = confirmed([c.recipe for c in halving.candidates], halving.anchors)
    first = confirmation(halving, every, halving.cohort)
    halving = dataclasses.replace(halving, primary=checked(first, table))
    for kind in KINDS:
        if halving.of(kind):
            cohort = cohort_of(table, halving, kind)
            study = declared_rung(halving, 1, kind, halving.of(kind), cohort, out)
            held_out = study.held_out if kind == "adaptation" else [d for rung in halving.rungs for d in rung.held_out]
            checked(dataclasses.replace(study, held_out=list(dict.fromkeys(held_out))), cohort)
    halving = dataclasses.replace(halving, rule=rule_of(halving))
    halving.save(out)
    for line in halving.rule:
        tell(line)
    seconds = halving.cost["seconds"]
    tell(
        f"at most {halving.cost['trainings']} trainings"
        + (f" and {words_of(seconds)} of training, one after the other" if seconds is not None else "")
        + f"; declared in {out / FILE}"
    )
    return halving


def confirmation(halving: Halving, rows: Sequence[Recipe], path: str) -> Declaration:
    """The ordinary study that rows are confirmed in, with its references."""
    every, references = with_references(rows)
    return Declaration(
        name=halving.name,
        cohort=path,
        cohort_hash=halving.cohort_hash,
        domain_column=halving.domain_column,
        domains=halving.domains,
        held_out=halving.held_out,
        seeds=halving.seeds,
        rows=every,
        references=references,
        budget=halving.budget,
        sources=halving.sources,
        plan=halving.plan,
        tolerance_mm=halving.tolerance_mm,
        validation=halving.validation,
        fraction=halving.fraction,
        threads=halving.threads,
        primary=halving.primary,
        margin=halving.margin,
        lesions=halving.lesions,
        gap_subjects=halving.gap_subjects,
        task=halving.task,
        versions=halving.versions,
        command=halving.command,
    )


@dataclass
class Course:
    """The stages of a study by halving, one after the other."""

    halving: Halving
    table: Cohort
    path: Path
    out: Path
    progress: Callable[[HalvingProgress], None] | None
    tell: Callable[[str], None]
    where: dict[str, Any]
    estimate: bool

    def rungs(self) -> Results:
        """Runs the rungs that are not complete, and chooses the finalists."""
        results = Results.load(self.out)
        if results.finalists is not None:
            results.save(self.out, self.halving)  # a kill may have come between its two files
            return results
        left = {kind: self.halving.of(kind) for kind in KINDS}
        last: dict[str, list[Place]] = {kind: [] for kind in KINDS}
        for number in range(1, len(self.halving.rungs) + 1):
            for kind in KINDS:
                if not left[kind]:
                    continue
                key = (number, kind)
                if key not in results.rungs:
                    results.rungs[key] = self._rung(number, kind, left[kind])
                    results.save(self.out, self.halving)
                last[kind] = [p for p in results.rungs[key] if p.kept]
                names = {p.row for p in last[kind]}
                left[kind] = [c for c in left[kind] if c.recipe.name in names]
            ranked = [p for (n, _), places in results.rungs.items() if n == number for p in places]
            # A row without rivals was not trained: that it is left says nothing of the machine.
            none_trained = not all(p.kept for p in ranked) and not any(p.n for p in ranked)
            if none_trained or not any(left.values()):
                self._nothing_left(results, number)
        results.finalists, results.out = finalists_of(self.halving, [p for kind in KINDS for p in last[kind]])
        results.save(self.out, self.halving)
        self.tell(f"finalists: {', '.join(results.finalists)}; {len(results.dropped())} rows are out, see dropped.csv")
        return results

    def _rung(self, number: int, kind: str, candidates: Sequence[Candidate]) -> list[Place]:
        if len(candidates) == 1:
            return [alone(candidates[0], number)]
        folder = self.out / folder_of(number, kind)
        cohort = cohort_of(self.table, self.halving, kind)
        path = cohort.write(self.out / "rungs" / f"cohort-{kind}" / "table.csv").resolve()
        study = declared_rung(self.halving, number, kind, candidates, cohort, path)
        _share_store(self.out, folder)
        budget = self.halving.rungs[number - 1].seconds
        stage = f"rung {number}, {kind}"
        self.tell(f"{stage}: {len(candidates)} rows on {', '.join(study.held_out)}")
        self._run(stage, study, cohort, folder, self.estimate and budget is None)
        if not all(job.done(folder) for job in jobs(study)):
            self.tell(f"{stage}: trying once more what failed")
            self._run(stage, study, cohort, folder, False)
        require_ranked_fairly(folder, study)
        if any(status(c) == "done" for job in jobs(study) for c in job.cells(folder).values()):
            gather(folder, study)
        places = placed(folder, study, self.halving, number, kind)
        self.tell(f"{stage}: kept {', '.join(p.row for p in places if p.kept) or 'none'}")
        return places

    def confirmation(self, results: Results) -> None:
        """The ordinary study of finalists, anchors and references, in the folder itself."""
        assert results.finalists is not None
        by_name = {c.recipe.name: c.recipe for c in self.halving.candidates}
        finalists = [by_name[name] for name in results.finalists]
        rows = confirmed(finalists, self.halving.anchors)
        study = confirmation(self.halving, rows, os.fspath(self.path.resolve()))
        self.tell(f"confirmation on {', '.join(study.held_out)}: {', '.join(r.name for r in study.rows)}")
        self._run("confirmation", study, self.table, self.out, self.estimate)
        gather(self.out, study)

    def _run(self, stage: str, study: Declaration, cohort: Cohort, folder: Path, estimate: bool) -> None:
        stages = self.halving.cost["stages"]
        place = next((i for i, s in enumerate(stages) if s["stage"] == stage), len(stages) - 1)
        before = sum(s["trainings"] for s in stages[:place])
        later = sum(s["trainings"] for s in stages[place + 1 :])
        seconds_later = sum(math.nan if s["seconds"] is None else s["seconds"] for s in stages[place + 1 :])
        each = study.budget["seconds"]

        def progress(state: GridProgress) -> None:
            if self.progress is None:
                return
            own = (state.total - state.done) * (math.nan if each is None else each)
            left = (own + seconds_later) / max(1, state.workers)
            number = len(study.rows)
            # What was declared is the most: stages behind may have needed fewer trainings.
            total = before + state.total + later
            self.progress(HalvingProgress(stage, number, before + state.done, total, left, state))

        carry_out(study, cohort, folder, progress=progress, estimate=estimate, **self.where)

    def _nothing_left(self, results: Results, number: int) -> None:
        """Every row failed: more likely the machine than the rows, so that this rung is tried again next time."""
        tried = [results.rungs.pop((number, kind), []) for kind in KINDS]
        first = next(p for places in tried for p in places if not p.kept)
        results.save(self.out, self.halving)
        raise RunError(
            f"every row failed in rung {number}; the first one, {first.row}, {first.reason}; nothing is dropped: the "
            "same command tries this rung again"
        )


def _share_store(out: Path, folder: Path) -> None:
    """Rungs and confirmation preprocess the same scans alike: they share one store where links are possible."""
    (out / "store").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "store").exists():
        with contextlib.suppress(OSError, NotImplementedError):
            (folder / "store").symlink_to(Path("..") / ".." / "store", target_is_directory=True)
