# What it is: other installations of PostgreSQL beside the real one: a copy, and one that shares all files but some.
# Who calls it: live tests of modules that are missing, and of a library with faults in it; scripts that build others.
# Never: changes a file of the real installation.
import os
import shutil

from postgres import directory_of
from processes import make_directory, remove_directory


class Copy:
    """Of the real one, in a directory. PostgreSQL finds its directories from where its programs are, as long as they lie
    to each other as before."""

    def __init__(self, root):
        self.root = root
        self.pg_config = os.path.join(self.place("bindir"), "pg_config")

    def place(self, what):
        return os.path.join(self.root, directory_of(what).lstrip("/"))

    def make(self):
        shutil.rmtree(self.root, ignore_errors=True)
        for real, place in ((os.path.dirname(directory_of("bindir")), os.path.dirname(self.place("bindir"))),
                            (directory_of("sharedir"), self.place("sharedir")),
                            (directory_of("includedir"), self.place("includedir"))):
            shutil.copytree(real, place, symlinks=True)


class Installation:
    """A server finds its libraries by where its program is: so that is a copy, and the rest are links to the real ones.

        with Installation() as installation, PostgresCluster(postgres=installation.postgres) as server:
            installation.take_away("redis")
            installation.put_back("redis")"""

    def __enter__(self):
        self.directory = make_directory("installation")
        os.chmod(self.directory, 0o755)
        real = {what: directory_of(what) for what in ("bindir", "pkglibdir", "sharedir")}
        common = os.path.commonpath(real.values())
        own = {what: os.path.join(self.directory, os.path.relpath(path, common)) for what, path in real.items()}
        for path in own.values():
            os.makedirs(path)
        for what in ("pkglibdir", "sharedir"):
            for entry in os.listdir(real[what]):
                os.symlink(os.path.join(real[what], entry), os.path.join(own[what], entry))
        self.postgres = os.path.join(own["bindir"], "postgres")
        shutil.copy2(os.path.join(real["bindir"], "postgres"), self.postgres)
        self.real, self.own, self.own_scripts = real["pkglibdir"], own["pkglibdir"], own["sharedir"]
        return self

    def __exit__(self, *_):
        remove_directory(self.directory)

    def put_in(self, name, path):
        """Another library in the place of one of the real ones; copied, for whoever runs the server may read it."""
        place = os.path.join(self.own, name)
        if os.path.lexists(place):
            os.unlink(place)
        shutil.copyfile(path, place)
        os.chmod(place, 0o755)

    def put_script(self, path, name=None):
        """Another version of an extension's SQL, or of its control file, beside those that the real one has."""
        place = os.path.join(self.own_scripts, "extension")
        if os.path.islink(place):
            real = os.path.realpath(place)
            os.unlink(place)
            os.mkdir(place)
            for entry in os.listdir(real):
                os.symlink(os.path.join(real, entry), os.path.join(place, entry))
        place = os.path.join(place, name or os.path.basename(path))
        if os.path.islink(place):
            os.unlink(place)
        shutil.copy(path, place)
        os.chmod(place, 0o644)

    def path(self, protocol):
        return os.path.join(self.own, f"pg_eventbus_{protocol}.so")

    def take_away(self, protocol):
        os.unlink(self.path(protocol))

    def put_back(self, protocol):
        os.symlink(os.path.join(self.real, f"pg_eventbus_{protocol}.so"), self.path(protocol))
