"""The documents against the code: settings, errors, routes, commands, tables, log members, files, version.

The code's own tables are read from its source, so what is compared is what is compiled; what warmupctl takes, it is
asked itself. A difference fails with the two sides shown.

    python3 -m pytest -q tests/docs_check.py        programs: $WARMUP_BUILD, else --build, default build
"""

import json
import os
import pathlib
import re
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parent.parent
MANUALS = ["fcgi/warmup.fcgi.8", "deploy/warmupctl.8"]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def read(name):
    return (TOP / name).read_text(encoding="utf-8")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def words(text):
    """The text on one line."""
    return " ".join(text.split())


# --- the code -------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|/\*.*?\*/|//[^\n]*|[A-Za-z_]\w*|\d+|\S', re.S)
CLOSING = {"(": ")", "{": "}", "[": "]"}


def tokens_of(source):
    return [token for token in TOKEN.findall(source) if not token.startswith(("/*", "//"))]


def split(tokens):
    """Tokens at the outer level, between commas: a list of lists."""
    parts, depth = [[]], 0
    for token in tokens:
        depth += (token in CLOSING) - (token in CLOSING.values())
        if token == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def braced(tokens, start):
    """The tokens between the bracket at start and the one that closes it."""
    depth = 0
    for end in range(start, len(tokens)):
        depth += (tokens[end] in CLOSING) - (tokens[end] in CLOSING.values())
        if depth == 0:
            return tokens[start + 1:end]
    raise AssertionError("unbalanced brackets")


def value_of(field):
    """A field: adjacent string literals as one str, anything else as its source."""
    if all(token.startswith('"') for token in field):
        return "".join(json.loads(token) for token in field)
    return " ".join(field)


def table_of(name, array):
    """The rows of an array's initializer in a source file: (designator or None, fields)."""
    tokens = tokens_of(read(name))
    at = next(i for i in range(len(tokens)) if tokens[i] == array and tokens[i + 1] == "[")
    start = tokens.index("{", at)
    rows = []
    for part in split(braced(tokens, start)):
        designator = part[1] if part[0] == "[" else None
        if "{" in part:
            rows.append((designator, [value_of(field) for field in split(braced(part, part.index("{")))]))
    assert rows, f"no rows of {array} found in {name}"
    return rows


def constants():
    source = "".join(file.read_text() for file in [*TOP.glob("shared/*.h"), *TOP.glob("shared/*.c")])
    return dict(re.findall(r'#define\s+(\w+)\s+(\d+|"[^"]*")', source))


def settings():
    """name: (kind, default as the documents write it, range or None), in the table's order."""
    known = constants()
    found = {}
    for _, (name, kind, need, fallback, target, *_) in table_of("shared/config.c", "settings"):
        limits = re.fullmatch(r"INT \( \w+ , (\w+) , (\w+) \)", target)
        numbers = tuple(int(known.get(limit, limit)) for limit in limits.groups()) if limits else None
        default = {"NULL": "required", "": "the system's"}.get(fallback, fallback)
        assert (default == "required") == (need != "0"), name
        found[name] = kind, default, numbers if kind == "KIND_INT" else None
    return found


def errors():
    """The set of (status, code, message) that a caller may see."""
    rows = dict(table_of("shared/err.c", "table"))
    del rows["ERR_OK"]
    found = {(int(status), code, message) for _, status, code, message, _ in rows.values()}
    assert len(found) > 10
    return found


def routes():
    return {(method, pattern): allow for _, (method, pattern, allow, *_) in table_of("fcgi/routes.c", "table")}


def function(name, called):
    found = re.search(rf"^{called}\(.*?^}}", read(name), re.S | re.M)
    assert found, f"{called} not found in {name}"
    return found[0]


def log_members(called):
    """The members that a function of log.c writes, in its order."""
    first = re.findall(r'(?:put_\w+|json_key)\(\s*&?line,\s*"(\w+)"', function("shared/log.c", "begin_line"))
    return first + re.findall(r'(?:put_\w+|json_key)\(\s*&?line,\s*"(\w+)"', function("shared/log.c", called))


def schema():
    """table: {column: type}."""
    source = read("deploy/schema/0001_tables.sql")
    found = {table: dict(re.findall(r"^\s+(\w+)\s+(\w+)", body, re.M))
             for table, body in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)\n *\);", source, re.S)}
    assert found
    return found


# --- the documents --------------------------------------------------------------------------------------------------

def readme(heading):
    """A section of README.md."""
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", read("README.md"), re.S | re.M)
    assert found, f"README.md has no section {heading}"
    return found[1]


def cells(text, columns):
    """The rows of the first table with so many columns, without its heading."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    rows = [row for row in rows if len(row) == columns]
    assert len(rows) > 2, "table not found"
    return rows[2:]


def plain(cell):
    """A table's cell without its markup."""
    return cell.strip("`").replace(r"\<", "<").replace(r"\>", ">")


def manual(name, heading):
    """A section of a manual page, as source."""
    found = re.search(rf"^\.Sh {heading}$(.*?)(?=^\.Sh |\Z)", read(name), re.S | re.M)
    assert found, f"{name} has no section {heading}"
    return found[1].replace(r"\(dq", '"')


def items(section, macro):
    """What follows ".It MACRO " in a manual's list, with the text below it, up to the next such item."""
    return re.findall(rf"^\.It {macro}(.*)\n((?:(?!\.It {macro}).*\n?)*)", section, re.M)


def rendered(name, heading):
    """The lines of a section as a reader sees them, none of them wrapped."""
    text = re.sub(".\b", "", run("mandoc", "-T", "ascii", "-O", "width=300", name))
    return [words(line) for line in re.search(rf"^{heading}\n(.*?)(?=^\S)", text, re.S | re.M)[1].splitlines() if line]


def manual_settings():
    """name: (default, text)."""
    found = {}
    for head, text in items(manual(MANUALS[0], "ENVIRONMENT"), "Ev "):
        name, _, default = head.partition(" ")
        found[name] = re.sub(r"^(Pq|No =) ", "", default), words(text)
    return found


# --- settings -------------------------------------------------------------------------------------------------------

def test_settings_have_the_same_names_and_defaults():
    wanted = {name: default for name, (_, default, _) in settings().items()}
    in_readme = {plain(row[0]): plain(row[1]) for row in cells(readme("Settings"), 4)}
    in_manual = {name: default for name, (default, _) in manual_settings().items()}
    for document in in_readme, in_manual:
        assert "WARMUP_CONFIG" in document
        del document["WARMUP_CONFIG"]  # names the file, so it is no row of the table
        assert list(document.items()) == list(wanted.items())


def test_settings_have_the_same_ranges():
    in_readme = {plain(row[0]): row[2] for row in cells(readme("Settings"), 4)}
    in_manual = {name: text for name, (_, text) in manual_settings().items()}
    levels = re.findall(r'\[LOG_\w+\] = "(\w+)"', read("shared/log.c"))
    assert len(levels) == 4
    for name, (kind, _, limits) in settings().items():
        if kind == "KIND_INT":
            assert in_readme[name] == "%d to %d" % limits, name
            assert "%d to %d" % limits in in_manual[name], name
        choices = {"KIND_ON_OFF": ["on", "off"], "KIND_LEVEL": levels}.get(kind, [])
        for choice in choices:
            assert f"`{choice}`" in in_readme[name] and f".Ql {choice}" in in_manual[name], (name, choice)


def test_sample_file_has_every_setting_with_its_default():
    comment, found = "", {}
    for line in read("deploy/warmup.conf.example").splitlines():
        setting = re.fullmatch(r"(#?)([A-Z][A-Z_]+)=(.*)", line)
        if not setting:
            comment = f"{comment} {line}" if line.startswith("# ") else ""
            continue
        name = setting[2]
        found[name] = setting[3] if setting[1] else "required"
        assert name in settings(), f"{name} does not exist"
        for low, high in re.findall(r"(\d+) to (\d+)", comment):
            assert (int(low), int(high)) == settings()[name][2], name
    assert list(found.items()) == [(name, "" if default == "the system's" else default)
                                   for name, (_, default, _) in settings().items()]


def test_settings_named_anywhere_exist():
    known = {*settings(), "WARMUP_CONFIG"}
    for name in ["README.md", "CHANGELOG.md", *MANUALS]:
        text = "\n".join(line for line in read(name).splitlines() if "no such setting" not in line)
        named = set(re.findall(r"\b(?:WARMUP|INSTANTLY)_[A-Z_]*[A-Z]\b", text))
        assert named <= known, (name, named - known)


def test_settings_files_are_where_the_code_looks():
    known = constants()
    for place in (json.loads(known["SYSTEM_FILE"]), "~/" + json.loads(known["USER_FILE"])):
        assert f"`{place}`" in readme("Settings")
        assert f".It Pa {place}\n" in manual(MANUALS[0], "FILES")
        assert place in read("deploy/warmup.conf.example")


def test_time_limits_follow_from_the_defaults():
    used = set(re.findall(r"config->(\w+)", function("fcgi/main.c", "longest_request_ms")))
    assert used == {"db_timeout_ms", "upstream_timeout_ms", "job_wait_ms"}
    default = {name: int(default) for name, (kind, default, _) in settings().items() if kind == "KIND_INT"}
    slowest = (2 * default["WARMUP_DB_TIMEOUT_MS"] + default["WARMUP_UPSTREAM_TIMEOUT_MS"]
               + default["WARMUP_JOB_WAIT_MS"]) / 1000
    assert f"{slowest:g} s by default" in words(readme("Limits and how it stops"))
    assert f"{slowest:g} seconds by default" in words(manual(MANUALS[0], "DESCRIPTION"))
    assert int(re.search(r"TimeoutStopSec=(\d+)", read("deploy/hosts/systemd/warmup.service"))[1]) >= slowest + 5


# --- errors and routes ----------------------------------------------------------------------------------------------

def test_errors_are_in_the_readme():
    found = {(int(row[0]), plain(row[1]), plain(row[2])) for row in cells(readme("Errors"), 4)}
    assert found == errors()


def test_errors_are_in_the_manual():
    found = set()
    for head, text in items(manual(MANUALS[0], "RESPONSES"), ""):
        status, code = head.split()
        found |= {(int(status), code, words(message)) for message in re.findall(r"\\\(lq(.*?)\\\(rq", text, re.S)}
    assert found == errors()


def test_agents_are_told_of_every_status():
    told = set(re.findall(r"\b[2-5]\d\d\b", " ".join(row[0] for row in cells(readme("For scripts and AI agents"), 2))))
    assert told - {"504"} == {str(status) for status, _, _ in errors()} | {"200"}  # 504 is the web server's
    assert "    Warmup was enabled but failed to update account status\n" in readme("For scripts and AI agents")


def test_reasons_of_a_502_are_told():
    reasons = [reason for reason in re.findall(r'\[UPSTREAM_\w+\] = "(\w*)"', read("shared/instantly.c")) if reason]
    assert len(reasons) > 5
    for reason in reasons:
        assert f"`{reason}`" in readme("Errors"), reason
        assert re.search(rf"^\.Ql {reason}( [.,])?$", manual(MANUALS[0], "RESPONSES"), re.M), reason


def test_routes_are_told():
    text = words(readme("A request and its answer"))
    assert {tuple(plain(row[0]).split()) for row in cells(readme("A request and its answer"), 3)} == set(routes())
    in_manual = {tuple(head.split()): re.findall(r"^Allow: (.*)$", body, re.M)
                 for head, body in items(manual(MANUALS[0], "REQUESTS"), "")}
    assert in_manual == {route: [allow] for route, allow in routes().items()}
    for allow in routes().values():
        assert f"`{allow}`" in text


# --- the operator's tool --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def warmupctl(request):
    folder = os.environ.get("WARMUP_BUILD") or request.config.getoption("--build", default="build")
    program = TOP / folder / "warmupctl"
    assert program.exists(), f"{program} is missing: run make first"
    return program


def test_commands_are_told(warmupctl):
    usage = [words(re.split(r" {2,}", line.strip())[0]) for line in run(warmupctl, "--help").splitlines()
             if line.startswith("  warmupctl ")]
    assert len(usage) > 3
    assert rendered(MANUALS[1], "SYNOPSIS") == usage
    commands = [line for line in usage if not re.search(r"COMMAND|--version", line)]
    assert re.findall(r"^    (warmupctl .*\[--json\])$", readme("Database"), re.M) == commands


def test_options_of_commands_are_told(warmupctl):
    told = {name: re.findall(r"^\.It (Fl|Ar) (.*)$", text, re.M)
            for name, text in items(manual(MANUALS[1], "DESCRIPTION"), "Cm ")}
    assert len(told) > 3
    for name, options in told.items():
        listed = re.findall(r"^  ([\w-]+(?: [A-Z]+)?)  ", run(warmupctl, *name.split(), "--help"), re.M)
        written = [re.sub("^-", "--", option.replace("Ar ", "")) for _, option in options]
        assert written == [option for option in listed if option != "--json"], name


def test_exit_statuses_are_told(warmupctl):
    said = re.search(r"Exit status: (.*)\.", run(warmupctl, "--help"))[1]
    assert re.findall(r"\d+", said) == [head for head, _ in items(manual(MANUALS[1], "EXIT STATUS"), "")]


# --- database, logs, files, version ---------------------------------------------------------------------------------

def test_tables_are_told():
    wanted = {table: list(columns.items()) for table, columns in schema().items()}
    in_readme = {plain(row[0]): [tuple(column.split()) for column in re.findall(r"`(\w+ \w+)`", row[1])]
                 for row in cells(readme("Database"), 3)}
    in_manual = {head: re.findall(r"(\w+) \((\w+)\)", words(text).partition(" .El")[0])
                 for head, text in items(manual(MANUALS[0], "DATABASE"), "Sy ")}
    assert in_readme == wanted
    assert in_manual == wanted


def test_log_members_are_told():
    example = re.search(r"```json\n(.*?)```", readme("Logs"), re.S)[1].replace("\n", "")
    assert list(json.loads(example)) == log_members("log_request")
    told = list(dict.fromkeys(re.findall(r"^\.Va (\w+)", manual(MANUALS[0], "LOGS"), re.M)))
    fault = [member for member in log_members("log_fault") if member not in log_members("log_request")]
    assert told == log_members("log_request") + fault
    for member in fault:
        assert f"`{member}`" in readme("Logs")


def test_tour_names_every_source_and_nothing_else():
    named = re.findall(r"`([\w./-]+)`", readme("A tour of the source"))
    named = [name for name in named if "/" in name or name.startswith(".") or name.endswith(".md")]
    missing = [name for name in named if not (TOP / name).exists()]
    assert not missing
    files = [file for folder in ("fcgi", "shared", "deploy") for file in TOP.glob(folder + "/*.c")]
    sources = {str(file.relative_to(TOP)) for file in files}
    assert len(sources) > 20
    assert sources - set(named) == set()


def test_files_named_anywhere_exist():
    for document in ["README.md", "CHANGELOG.md"]:
        for name in set(re.findall(r"(?<![\w./-])(?:\./)?((?:fcgi|shared|deploy|tests)/[\w./-]*\w)", read(document))):
            assert (TOP / name).exists(), (document, name)


def test_readme_begins_with_the_two_commands():
    for command in ("./deploy/demo", "./tests/run"):
        assert re.search(rf"^    {command}\b", readme("Try it"), re.M)
        assert os.access(TOP / command, os.X_OK), command


def test_installed_files_are_where_the_documents_say(warmupctl, tmp_path):
    build = warmupctl.parent.relative_to(TOP)  # make takes no path with a space, and the project may be in one
    run("make", "-s", "install", f"BUILD={build}", f"DESTDIR={tmp_path}")
    for name in ["README.md", *MANUALS]:
        # What the package has in /usr, it has from here, too.
        for path in set(re.findall(r"/usr/(?:local/|(?=\w+/warmup\b))([\w./-]*\w)", read(name))):
            assert (tmp_path / "usr/local" / path).exists(), (name, path)


def test_version_is_the_newest_in_the_changelog():
    version = re.search(r'WARMUP_VERSION "(.*)"', read("shared/version.h"))[1]
    assert re.search(r"^## \[(.*?)\]", read("CHANGELOG.md"), re.M)[1] == version


@pytest.mark.parametrize("name", MANUALS)
def test_manual_is_clean(name):
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", name], capture_output=True, text=True, cwd=TOP)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lines_are_not_too_long():
    for name in ["README.md", "CHANGELOG.md"]:
        for number, line in enumerate(read(name).splitlines(), 1):
            assert line == line.rstrip() and (len(line) <= 120 or line.startswith("|")), (name, number)
