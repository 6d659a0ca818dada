# What it is: a certificate authority of its own, a server's and a client's certificate for 127.0.0.1, and bad ones:
# another authority, an expired certificate (right name, right authority), one for another host, one with its name in the
# subject alone; and the authority's revocation lists: of nothing, and of the server's certificate.
# Who calls it: the live tests of TLS.
# Never: makes anything that is worth protecting: the keys are readable by all and live for a day.
import os
import subprocess

from processes import make_directory, remove_directory

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
LOCAL = "IP:127.0.0.1,DNS:localhost"


class Certificates:
    def __init__(self):
        self.directory = make_directory("tls")
        self.ca, self._ca_key = self._authority("ca", "eventbus test CA")
        self.other_ca, _ = self._authority("other", "somebody else")
        self.server_cert, self.server_key = self._issue("server", "localhost", LOCAL)
        self.client_cert, self.client_key = self._issue("client", "eventbus", "DNS:client")
        self.expired_cert, self.expired_key = self._issue("expired", "localhost", LOCAL, days=0)
        self.elsewhere_cert, self.elsewhere_key = self._issue("elsewhere", "broker.example", "DNS:broker.example")
        self.subject_cert, self.subject_key = self._issue("subject", "localhost", None)
        self.empty_crl, self.server_crl = self._lists()
        for name in os.listdir(self.directory):
            os.chmod(self._path(name), 0o644)

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _authority(self, name, subject):
        cert, key = self._path(f"{name}.pem"), self._path(f"{name}.key")
        self._openssl("req", "-x509", *NEW_KEY, "-days", "1", "-subj", f"/CN={subject}", "-keyout", key, "-out", cert)
        return cert, key

    def _issue(self, name, subject, alternatives, days=1):
        """0 days: valid until the second in which it is made."""
        cert, key, request = self._path(f"{name}.pem"), self._path(f"{name}.key"), self._path(f"{name}.csr")
        extensions = self._path(f"{name}.ext")
        with open(extensions, "w") as text:
            text.write(f"subjectAltName={alternatives}\n" if alternatives else "")
        self._openssl("req", *NEW_KEY, "-subj", f"/CN={subject}", "-keyout", key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._ca_key, "-CAcreateserial",
                      "-days", str(days), "-extfile", extensions, "-out", cert)
        return cert, key

    def _lists(self):
        settings, index = self._path("lists.cnf"), self._path("index.txt")
        with open(settings, "w") as text:
            text.write(f"[ca]\ndefault_ca=one\n[one]\ndatabase={index}\ndefault_md=sha256\ndefault_crl_days=1\n")
        open(index, "w").close()
        authority = ("ca", "-config", settings, "-keyfile", self._ca_key, "-cert", self.ca)
        self._openssl(*authority, "-gencrl", "-out", self._path("empty.crl"))
        self._openssl(*authority, "-revoke", self.server_cert)
        self._openssl(*authority, "-gencrl", "-out", self._path("server.crl"))
        return self._path("empty.crl"), self._path("server.crl")

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def remove(self):
        remove_directory(self.directory)
