# What it is: a private PgBouncer in transaction mode before a private cluster.
# Who calls it: the live tests.
# Never: listens on a TCP port, or lets a transaction keep its server connection.
import os
import shutil

import psycopg2

from postgres import unprivileged_user
from processes import Process, free_port, make_directory, remove_directory


class PgBouncer:
    """users: who may come in, without a password. pool: server connections for each of them and database, which everybody
    shares, transaction by transaction."""

    def __init__(self, cluster, users, pool=1):
        self.user = unprivileged_user()  # it refuses to run as root
        self.directory = make_directory("pgbouncer", self.user)
        self.port = free_port()  # of a socket in the directory
        self.log_path = os.path.join(self.directory, "log")
        self.users, self.process = users, None
        self._write("users", (f'"{user}" ""' for user in users))
        self._write("pgbouncer.ini", (
            "[databases]", f"* = host={cluster.directory} port={cluster.port}",
            "[pgbouncer]", "pool_mode = transaction", f"default_pool_size = {pool}", "listen_addr =",
            f"listen_port = {self.port}", f"unix_socket_dir = {self.directory}", "auth_type = trust",
            f"auth_file = {self._path('users')}", f"admin_users = {users[0]}",
            "ignore_startup_parameters = extra_float_digits"))  # JDBC sends it

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _write(self, name, lines):
        with open(self._path(name), "w") as text:
            text.writelines(f"{line}\n" for line in lines)
        if self.user:
            shutil.chown(self._path(name), self.user)

    def accepts(self):
        try:
            self.admin("SHOW VERSION")
            return True
        except psycopg2.OperationalError:
            return False

    def admin(self, command):
        connection = psycopg2.connect(host=self.directory, port=self.port, user=self.users[0], dbname="pgbouncer")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(command)
                return cursor.fetchall()
        finally:
            connection.close()

    def __enter__(self):
        self.process = Process(["pgbouncer", self._path("pgbouncer.ini")], self.log_path, self.user,
                               directory=self.directory)
        self.process.wait_ready(self.accepts)
        return self

    def __exit__(self, *_):
        if self.process.running():
            self.process.end()
        remove_directory(self.directory)
