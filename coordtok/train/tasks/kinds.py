"""The kinds of model that can be trained, by `model.name`: the one place that knows them all."""

from coordtok.config.models import ModelConfig
from coordtok.train.tasks.generator import GeneratorTask
from coordtok.train.tasks.task import Task
from coordtok.train.tasks.tokenizer import TokenizerTask

TASKS: dict[str, type[Task]] = {"coordtok": TokenizerTask, "dit": GeneratorTask}


def task_class(model: ModelConfig) -> type[Task]:
    """The task that trains the model which a config describes."""
    return TASKS[model.name]
