# What it is: a certificate authority of its own, with a server's and a client's certificate for 127.0.0.1.
# Who calls it: the live tests of TLS.
# Never: makes anything that is worth protecting: the keys are readable by all and live for a day.
import os
import subprocess

from processes import make_directory, remove_directory


class Certificates:
    def __init__(self):
        self.directory = make_directory("tls")
        self.ca, self._ca_key = self._path("ca.pem"), self._path("ca.key")
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=eventbus test CA",
                      "-keyout", self._ca_key, "-out", self.ca)
        self.server_cert, self.server_key = self._issue("server", "localhost", "IP:127.0.0.1,DNS:localhost")
        self.client_cert, self.client_key = self._issue("client", "eventbus", "DNS:client")
        self.other_ca = self._path("other.pem")
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=somebody else",
                      "-keyout", self._path("other.key"), "-out", self.other_ca)
        for name in os.listdir(self.directory):
            os.chmod(self._path(name), 0o644)

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _issue(self, name, subject, alternatives):
        cert, key, request = self._path(f"{name}.pem"), self._path(f"{name}.key"), self._path(f"{name}.csr")
        extensions = self._path(f"{name}.ext")
        with open(extensions, "w") as text:
            text.write(f"subjectAltName={alternatives}\n")
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}", "-keyout", key,
                      "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._ca_key, "-CAcreateserial",
                      "-days", "1", "-extfile", extensions, "-out", cert)
        return cert, key

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def remove(self):
        remove_directory(self.directory)
