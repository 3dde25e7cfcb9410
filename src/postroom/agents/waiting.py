"""Jobs that wait for a connection to one destination, better grades first."""

from collections import deque

from postroom.agents.job import Job
from postroom.limits.grades import GRADES, Precedence


class Waiting:
    """A queue of jobs; within a grade the oldest goes first."""

    def __init__(self) -> None:
        self._jobs: list[deque[Job]] = [deque() for _ in range(GRADES)]
        self._precedence = Precedence()

    def __len__(self) -> int:
        return sum(map(len, self._jobs))

    def __bool__(self) -> bool:
        return any(self._jobs)

    def put(self, job: Job) -> None:
        """Add a job."""
        self._jobs[job.attempt.grade].append(job)

    def put_back(self, job: Job) -> None:
        """Add a job that had its turn already."""
        self._jobs[job.attempt.grade].appendleft(job)

    def first(self) -> Job:
        """Return a job, which stays; there must be one."""
        return next(jobs[0] for jobs in self._jobs if jobs)

    def take(self) -> Job | None:
        """Return the job whose turn it is; what nobody waits for is left out."""
        jobs, precedence = self._jobs, self._precedence
        while any(jobs):
            grade = precedence.choose(jobs)
            job = jobs[grade].popleft()
            if job.done.done():
                continue
            precedence.turn(grade)
            precedence.went(grade, 1, jobs)
            return job
        return None

    def clear(self) -> list[Job]:
        """Return all jobs; none stays."""
        found = [job for jobs in self._jobs for job in jobs]
        for jobs in self._jobs:
            jobs.clear()
        return found
