# What it is: mochi-mqtt, an MQTT broker in Go that is in no Debian package, built from the Go module proxy.
# Who calls it: test/live/test_mqtt_others.py.
# Never: is needed: where there is no Go, or no network, build() says what is missing.
import os
import shutil
import socket
import subprocess

from brokers import Broker
from processes import Process, free_port, make_directory

MODULE = "github.com/mochi-mqtt/server/v2 v2.7.9"
# Whoever comes may publish anything but to topics with "forbidden" in them.
MAIN = """
package main

import (
	"bytes"
	"log"
	"os"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

type access struct{ mqtt.HookBase }

func (h *access) ID() string { return "access" }
func (h *access) Provides(b byte) bool {
	return bytes.Contains([]byte{mqtt.OnConnectAuthenticate, mqtt.OnACLCheck}, []byte{b})
}
func (h *access) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool { return true }
func (h *access) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	return !write || !strings.Contains(topic, "forbidden")
}

func main() {
	server := mqtt.New(nil)
	if err := server.AddHook(new(access), nil); err != nil {
		log.Fatal(err)
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: os.Args[1]})); err != nil {
		log.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		log.Fatal(err)
	}
	select {}
}
"""


def build():
    """The program's path and None, or None and why there is none."""
    directory = os.path.join(os.path.dirname(__file__), "..", "..", "build", "mochi")
    program = os.path.abspath(os.path.join(directory, "mochi"))
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if os.path.exists(program):
        return program, None
    if go is None:
        return None, "there is no Go compiler"
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "main.go"), "w") as text:
        text.write(MAIN)
    with open(os.path.join(directory, "go.mod"), "w") as text:
        text.write(f"module mochi\n\ngo 1.21\n\nrequire {MODULE}\n")
    for command in (["mod", "tidy"], ["build", "-o", program, "."]):
        done = subprocess.run([go, *command], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            return None, f"go {command[0]}: {done.stdout[-300:]}"
    return program, None


class Mochi(Broker):
    def __init__(self, program):
        self.directory, self.port, self._program = make_directory("mochi"), free_port(), program

    @property
    def url(self):
        return f"mqtt://127.0.0.1:{self.port}"

    def _launch(self):
        self.process = Process([self._program, f"127.0.0.1:{self.port}"], os.path.join(self.directory, "log"))

    def _answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
