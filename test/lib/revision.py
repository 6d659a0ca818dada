# What it is: another revision of this tree, built and installed in a copy of PostgreSQL under build/.
# Who calls it: scripts/soak --with, scripts/keep-release, the long form of test_upgrade_order.py.
# Never: touches this tree's build, or an installation that is not its own; builds a revision twice.
import os
import shutil
import subprocess

from installation import Copy

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def name_of(revision):
    """Its short name; None where this clone does not have it, as a shallow one."""
    done = subprocess.run(["git", "-C", TREE, "rev-parse", "--short", f"{revision}^{{commit}}"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def build(revision):
    """The pg_config of the copy of PostgreSQL that it is installed in."""
    name = name_of(revision)
    if name is None:
        raise RuntimeError(f"this clone does not have {revision}")
    root = os.path.join(TREE, "build", "soak", name)
    there, copy = os.path.join(root, "tree"), Copy(os.path.join(root, "postgresql"))
    if not os.path.exists(os.path.join(root, "made")):
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(there)
        archive = subprocess.run(["git", "-C", TREE, "archive", name], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "x", "-C", there], input=archive, check=True)
        copy.make()
        for target in (f"-j{os.cpu_count()}", "install"):
            subprocess.run(["make", "--no-print-directory", "-C", there, target, f"PG_CONFIG={copy.pg_config}"], check=True,
                           stdout=subprocess.DEVNULL)
        with open(os.path.join(root, "made"), "w"):
            pass
    return copy.pg_config
