"""Completion for bash, zsh and fish, from the parsers of podwire's programs; pure.

Each shell gets a function for each program, which says by verb and previous word what follows:
words, `files`, or a kind of names. How that is offered is the shell's own part, which is fixed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from shlex import quote

_FILES = frozenset({"FILE", "DIR", "PATH", "DIRECTORY"})
"""Metavars of values that are files or folders."""
_KINDS = {"POD": "pods", "WHAT": "pods", "SRC": "pods", "NODE": "peers"}
"""Metavars of values that `podwirectl completion --words KIND` lists."""
_BASH = """\
_podwire_complete() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || { verb=${COMP_WORDS[i]}; break; }
    done
    local kind
    kind=$("_podwire_${1##*/}" "$verb" "$prev")
    case $kind in
        files) COMPREPLY=($(compgen -f -- "$cur")) ;;
        pods | peers)
            kind=$(podwirectl completion --words "$kind" 2>/dev/null)
            COMPREPLY=($(compgen -W "$kind" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W "$kind" -- "$cur")) ;;
    esac
    if [[ $cur == -* && $kind != files ]]; then
        COMPREPLY=($(compgen -W "$("_podwire_${1##*/}" "$verb" -)" -- "$cur"))
    fi
    [[ $kind != files ]] || compopt -o filenames 2>/dev/null
    return 0
}
"""
_ZSH = """\
_podwire_complete() {
    local cur=${words[CURRENT]} prev=${words[CURRENT-1]} verb= kind i
    for ((i = 2; i < CURRENT; i++)); do
        [[ ${words[i]} == -* ]] || { verb=${words[i]}; break; }
    done
    [[ $cur == -* ]] && prev=-
    kind=$("_podwire_${words[1]:t}" "$verb" "$prev")
    case $kind in
        files) _files ;;
        pods | peers) compadd -- ${(f)"$(podwirectl completion --words $kind 2>/dev/null)"} ;;
        *) compadd -- ${=kind} ;;
    esac
}
"""
_FISH = """\
function _podwire_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '.*/' '' -- $words[1])
    set -l verb ''
    for word in $words[2..-1]
        if not string match -q -- '-*' $word
            set verb $word
            break
        end
    end
    set -l previous $words[-1]
    if string match -q -- '-*' (commandline -ct)
        set previous -
    end
    set -l kind (_podwire_$program "$verb" $previous)
    switch "$kind"
        case files
            __fish_complete_path (commandline -ct)
        case pods peers
            podwirectl completion --words $kind 2>/dev/null
        case '*'
            string split -n ' ' -- $kind
    end
end
"""


@dataclass(frozen=True, slots=True)
class Verb:
    """A command. options: its flags. values: what follows a flag, or (by an empty one) what the
    command itself takes: words, `files`, or a kind of names."""

    options: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


def describe_verb(parser: argparse.ArgumentParser) -> Verb:
    """What a parser takes, but for commands of its own."""
    options: list[str] = []
    values: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            values.setdefault("", " ".join(action.choices))
            continue
        value = _value(action)
        options += action.option_strings
        if value:
            values |= dict.fromkeys(action.option_strings, value)
            values |= {} if action.option_strings else {"": values.get("", value)}
    return Verb(tuple(options), values)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    metavar = str(action.metavar or action.dest.upper())
    if metavar in _FILES or "config" in action.dest:
        return "files"
    return _KINDS.get(metavar, "")


def verbs_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands of a parser that has some."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


Programs = Mapping[str, Mapping[str, Verb]]
"""The programs, each by its verbs, the empty one for itself."""


def render_bash(programs: Programs) -> str:
    """The script for bash."""
    head = "# Completion of podwire's programs for bash; `podwirectl completion bash` prints it."
    command = f"complete -F _podwire_complete {' '.join(programs)}"
    return "\n".join([head, *_posix_functions(programs), _BASH + command, ""])


def render_zsh(programs: Programs) -> str:
    """The script for zsh: of a file _podwirectl in fpath, or to be sourced."""
    names = " ".join(programs)
    head = f"#compdef {names}\n# `podwirectl completion zsh` prints it."
    # A file in fpath is the function that completes, and defines itself on its first call.
    last = f"compdef _podwire_complete {names}\n(( ! ${{CURRENT:-0}} )) || _podwire_complete"
    return "\n".join([head, *_posix_functions(programs), _ZSH + last, ""])


def render_fish(programs: Programs) -> str:
    """The script for fish."""
    lines = ["# Completion of podwire's programs for fish; `podwirectl completion fish` prints it."]
    for program, verbs in programs.items():
        lines += [f"function _podwire_{program}", '    switch "$argv[1]:$argv[2]"']
        for pattern, words in _cases(verbs):
            lines += [
                f"        case {_fish_quote(pattern)}",
                f"            echo {_fish_quote(words)}",
            ]
        lines += ["    end", "end"]
    commands = [f"complete -c {program} -f -a '(_podwire_complete)'" for program in programs]
    return "\n".join([*lines, _FISH + "\n".join(commands), ""])


def _posix_functions(programs: Programs) -> Iterator[str]:
    for program, verbs in programs.items():
        yield f"_podwire_{program}() {{\n    case ${{1}}:${{2}} in"
        for pattern, words in _cases(verbs):
            verb, _, word = pattern.partition(":")
            yield f"        {quote(verb)}:{word}) echo {quote(words)} ;;"
        yield "    esac\n}"


def _cases(verbs: Mapping[str, Verb]) -> Iterator[tuple[str, str]]:
    """Patterns of verb and previous word, `-` for an option that begins, with what follows."""
    for name, verb in verbs.items():
        yield f"{name}:-", " ".join(verb.options)
        yield from ((f"{name}:{flag}", value) for flag, value in verb.values.items() if flag)
        yield f"{name}:*", verb.values.get("", "")


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
