"""The steps of an operator's life, in order. Each does something as the guide says (docs/operations), and says what is then true."""

from grow import bootstrap, drain, expand, rebalance, replace
from trouble import cut, lose, quorum, stall
from upkeep import finish, maintenance, recover, rolling

STEPS = {
    "bootstrap": bootstrap, "expand": expand, "rebalance": rebalance, "drain": drain, "replace": replace, "lose": lose, "cut": cut,
    "quorum": quorum, "rolling": rolling, "maintenance": maintenance, "stall": stall, "recover": recover, "finish": finish,
}
# Without these there is nothing to walk on.
ALWAYS = ("bootstrap", "expand")
