"""The configuration: YAML in, one frozen `Config` or every problem at once out.

nodes    text -> tree with places          grammar, units  what single values mean
written  what a file may say               reading         tree + models -> values, problems
model    what the rest of edgeproxy sees   assemble, routes  values of all files -> Config
"""

from edgeproxy.config.load import load, parse
from edgeproxy.config.model import Config, Limit, Route, Target, Upstream
from edgeproxy.config.problems import ConfigError, Problem
from edgeproxy.config.units import Rate

__all__ = [
    "Config",
    "ConfigError",
    "Limit",
    "Problem",
    "Rate",
    "Route",
    "Target",
    "Upstream",
    "load",
    "parse",
]
