"""The control engines, each as a way to make its server."""

from dueto.legs.esl_outbound import ControlServer

ENGINES = {"native": ControlServer}
