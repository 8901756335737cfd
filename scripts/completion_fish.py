"""fish completion of a program, from its interface: commands, their options, and the values of those
that list them. All else completes to files."""
from completion import choices, merged, own_programs, unique


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def option_line(program, option, condition):
    words = ["complete", "-c", program, *(["-n", condition] if condition else []), "-l", option.name]
    if option.short:
        words += ["-s", option.short]
    listed = choices(option)
    if listed:
        words += ["-x", "-a", quoted(" ".join(listed))]
    elif option.argument:
        words.append("-r")
    if option.text:
        words += ["-d", quoted(option.text)]
    return " ".join(words)


def script(told, programs):
    """`programs`: the names of all that have a script beside this one."""
    commands = merged(told.commands)
    texts = {command.name: command.text for command in reversed(told.commands)}
    lines = [f"# fish completion of {told.program} {told.version}; made from `{told.program} --help`."]
    if commands:
        lines.append(f"set -l {told.program.replace('-', '_')}_commands {' '.join(commands)}")
    begun = f'"not __fish_seen_subcommand_from ${told.program.replace("-", "_")}_commands"'
    for name in commands:
        lines.append(f"complete -c {told.program} -n {begun} -f -a {name} -d {quoted(texts[name])}")
    for option in unique(told.options):
        lines.append(option_line(told.program, option, ""))
    for name, options in commands.items():
        for option in unique(options):
            lines.append(option_line(told.program, option, f"'__fish_seen_subcommand_from {name}'"))
    for name, program in own_programs(told, programs).items():
        words = f'(string replace -r "^.*? {name} +" "{program} " -- (commandline -cp))'
        lines.append(f"complete -c {told.program} -n '__fish_seen_subcommand_from {name}' -f -a "
                     + quoted(f"(complete -C {words})"))
    return "\n".join(lines) + "\n"
