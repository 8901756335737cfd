"""Completion scripts: what all shells share, and bash's (completion_zsh.py, completion_fish.py).

A script is made from a program's interface: its commands, their options, and the values
of options whose help or usage lists them ("pin|restart"). All else completes to files."""
import dataclasses
import re

TEMPLATE = '''\
# bash completion of {program} {version}; made from `{program} --help`.
_{function}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command="" options="{options}" i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${{COMP_WORDS[i]}} in
{commands}
    esac
  done
{handed_on}  COMPREPLY=()
  case "$command $before" in
{values}
  esac
  case $command in
{command_options}
  esac
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  elif [[ -z $command && -n "{names}" ]]; then
    mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$word")
  else
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}}
complete -F _{function} {program}
'''


# A command that is a program of its own: what follows it is completed as that program's words.
HAND_ON = '''\
  if [[ $command == {command} ]]; then
    declare -F _{function} >/dev/null || source "${{BASH_SOURCE[0]%/*}}/{program}" 2>/dev/null || return
    COMP_WORDS=({program} "${{COMP_WORDS[@]:i + 1}}")
    COMP_CWORD=$((COMP_CWORD - i))
    _{function}
    return
  fi
'''


def choices(option):
    """The values that the option lists, e.g. of "pin|restart (=pin)" or "debug, info, warning or error"."""
    argument = re.sub(r" \(=.*", "", option.argument)
    if "|" in argument:
        return argument.split("|")
    listed = re.match(r"((?:\w+, )+\w+ or \w+)(?:;|$)", option.text)
    return re.split(r", | or ", listed.group(1)) if listed else []


def merged(commands):
    """Command names in order, each with the options of all its forms."""
    found = {}
    for command in commands:
        found.setdefault(command.name, []).extend(command.options)
    return found


def unique(options):
    """Each option once, in order, its text on one line; a name that comes again is the same one."""
    found = {}
    for option in options:
        found.setdefault(option.name, dataclasses.replace(option, text=" ".join(option.text.split())))
    return list(found.values())


def own_programs(told, programs):
    """The commands that are programs of their own, and which of `programs`."""
    return {name: f"{told.program}-{name}" for name in merged(told.commands) if f"{told.program}-{name}" in programs}


def script(told, programs):
    """`programs`: the names of all that have a script beside this one."""
    commands = merged(told.commands)
    places, per_command = {}, []  # how an option's value is completed -> after which words
    for command, options in [("*", told.options), *commands.items()]:
        for option in options:
            if not option.argument:
                continue
            listed = choices(option)
            reply = f'compgen -W "{" ".join(listed)}"' if listed else "compgen -f"
            place = f'*" --{option.name}"' if command == "*" else f'"{command} --{option.name}"'
            places.setdefault(reply, []).append(place)
    for name, options in commands.items():
        if options:
            added = " ".join(f"--{option}" for option in dict.fromkeys(o.name for o in options))
            per_command.append(f'    {name}) options+=" {added}" ;;')
    values = [f'    {"|".join(after)}) mapfile -t COMPREPLY < <({reply} -- "$word"); return ;;' for reply, after in places.items()]
    names = " ".join(commands)
    return TEMPLATE.format(
        handed_on="".join(HAND_ON.format(command=command, program=program, function=program.replace("-", "_"))
                          for command, program in own_programs(told, programs).items()),
        program=told.program, version=told.version, function=told.program.replace("-", "_"),
        options=" ".join(f"--{option.name}" for option in told.options), names=names,
        commands=f'      {names.replace(" ", "|")}) command=${{COMP_WORDS[i]}}; break ;;' if names else "      *) ;;",
        values="\n".join(values) or "    *) ;;", command_options="\n".join(per_command) or "    *) ;;")
