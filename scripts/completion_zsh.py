"""zsh completion of a program, from its interface: commands, their options, and the values of those
that list them. All else completes to files."""
import re

from completion import choices, merged, own_programs, unique

TEMPLATE = """\
#compdef {program}
# zsh completion of {program} {version}; made from `{program} --help`.
_{function}() {{
  local context state state_descr line
  typeset -A opt_args
{body}
}}
_{function} "$@"
"""
WITH_COMMANDS = """\
  local -a commands=(
{commands}
  )
  _arguments -C \\
{options}
    '1:command:->command' '*::argument:->argument' && return
  case $state in
    command) _describe -t commands command commands ;;
    argument)
      case $words[1] in
{per_command}
      esac ;;
  esac"""


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def described(text):
    """What an option's brackets may hold."""
    return re.sub(r"([\[\]\\:])", r"\\\1", text)


def specs(options):
    """For _arguments, one for each option; one that has a letter excludes its other spelling."""
    found = []
    for option in unique(options):
        text = f"[{described(option.text)}]" if option.text else ""
        listed = choices(option)
        value = ""
        if option.argument:
            name = described(re.sub(r" \(=.*", "", option.argument))
            value = f":{name}:" + (f"({' '.join(listed)})" if listed else "_files")
        if option.short:
            other = f"(-{option.short} --{option.name})"
            found.append(quoted(f"{other}-{option.short}{text}{value}"))
            found.append(quoted(f"{other}--{option.name}{text}{value}"))
        else:
            again = "*" if "may be repeated" in option.text else ""
            found.append(quoted(f"{again}--{option.name}{text}{value}"))
    return found


def script(told, programs):
    """`programs`: the names of all that have a script beside this one."""
    commands = merged(told.commands)
    texts = {command.name: command.text for command in reversed(told.commands)}
    options = specs(told.options)
    handed_on = own_programs(told, programs)
    if commands:
        body = WITH_COMMANDS.format(
            commands="\n".join("    " + quoted(f"{name}:{texts[name]}") for name in commands),
            options="\n".join(f"    {spec} \\" for spec in options) or "    \\",
            per_command="\n".join(
                "        " + (f"{name}) words[1]={handed_on[name]}; _{handed_on[name]} ;;" if name in handed_on else
                              " ".join([f"{name})", "_arguments", *specs(own), "'*:file:_files' ;;"]))
                for name, own in commands.items()))
    else:
        body = "  _arguments " + " \\\n    ".join([*options, "'*:file:_files'"])
    return TEMPLATE.format(program=told.program, version=told.version,
                           function=told.program.replace("-", "_"), body=body)
