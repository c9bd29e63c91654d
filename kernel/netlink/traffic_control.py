"""Traffic control messages: nouns to messages and back (linux/pkt_sched.h, pkt_cls.h)."""

from __future__ import annotations

import socket
import struct

from kernel.model import Link, TokenBucket
from kernel.netlink import links
from kernel.netlink.codec import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    attributes,
    nested,
    string,
    text,
)

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

_TCMSG = struct.Struct("=BxxxiIII")  # family, link, handle, parent, info
_ROOT, _INGRESS, _RECEIVED = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2  # TC_H_*; _RECEIVED: filters there
_BUCKET_HANDLE, _INGRESS_HANDLE = 0x10000, 0xFFFF0000
_KIND, _OPTIONS = 1, 2

_TBF_PARMS, _TBF_RATE64 = 1, 4
# struct tc_tbf_qopt: of the rate (struct tc_ratespec) the number alone, peak rate, limit, buffer,
# mtu.
_TBF = struct.Struct("=8xI12xIII")
_RATE_MAX = (1 << 32) - 1

_U32_SEL, _U32_ACT = 5, 7
# struct tc_u32_sel with one key that every packet has: no bit of the first word is compared.
_SELECTOR = struct.Struct("=BBBxHHhhIIIii")
_TERMINAL = 1
_EVERY_PACKET = _SELECTOR.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_COMPARED = slice(16, 24)  # the key's mask and value
# The first filter of the hook, for packets of all protocols (ETH_P_ALL).
_FIRST = 1 << 16 | socket.htons(3)
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_MIRRED = struct.Struct("=8xi8xiI")  # struct tc_mirred: what becomes of the packet, how, the link
_STOLEN, _EGRESS_REDIRECT = 4, 1


def create_ifb(link: Link) -> Message:
    """Create an ifb device, down: what is redirected to it comes back as received."""
    return links.create_link(link, "ifb")


def set_bucket(bucket: TokenBucket, index: int, *, new: bool = False) -> Message:
    """Make it the link's root, or set its numbers where a token bucket is the root already.

    new: only where the root is the kernel's own (answer: EEXIST).

    On a link that is up the kernel waits for those that are sending (net/sched/sch_generic.c,
    dev_deactivate_many).
    """
    low = min(bucket.rate, _RATE_MAX)
    options = attribute(_TBF_PARMS, _TBF.pack(low, bucket.limit, bucket.buffer, 0))
    if bucket.rate > _RATE_MAX:
        options += attribute(_TBF_RATE64, struct.pack("=Q", bucket.rate))
    head = _TCMSG.pack(0, index, _BUCKET_HANDLE, _ROOT, 0)
    body = head + text(_KIND, "tbf") + nested(_OPTIONS, options)
    flags = NLM_F_CREATE | (NLM_F_EXCL if new else NLM_F_REPLACE)
    return Message(RTM_NEWQDISC, flags, body, ("set qdisc tbf of", bucket.link))


def delete_root(name: str, index: int) -> Message:
    """Delete the link's root (answer: an error where it is the kernel's own)."""
    body = _TCMSG.pack(0, index, 0, _ROOT, 0)
    return Message(RTM_DELQDISC, 0, body, ("delete the root qdisc of", name))


def list_qdiscs() -> Message:
    """Ask for the queueing disciplines of all links (a dump).

    To ask for one would tell everybody who listens to changes (net/sched/sch_api.c,
    qdisc_get_notify).
    """
    return Message(RTM_GETQDISC, 0, _TCMSG.pack(0, 0, 0, 0, 0), "list qdiscs")


def parse_qdisc(message: Message) -> tuple[int, str]:
    """The index of the link and the kind of a qdisc, in an answer to `list_qdiscs`."""
    _family, index, *_rest = _TCMSG.unpack_from(message.body)
    return index, string(attributes(message.body, _TCMSG.size).get(_KIND, b""))


def root_of(message: Message) -> int:
    """The index of the link that an RTM_NEWQDISC answer is the root of; 0: it is no root."""
    _family, index, _handle, parent, _info = _TCMSG.unpack_from(message.body)
    return int(index) if parent == _ROOT else 0


def parse_bucket(message: Message, name: str) -> TokenBucket | None:
    """The token bucket of an RTM_NEWQDISC answer; None where it is of another kind."""
    found = attributes(message.body, _TCMSG.size)
    options = attributes(found.get(_OPTIONS, b""))
    if found.get(_KIND) != b"tbf\0" or _TBF_PARMS not in options:
        return None
    rate, limit, buffer, _mtu = _TBF.unpack_from(options[_TBF_PARMS])
    if _TBF_RATE64 in options:
        rate = struct.unpack("=Q", options[_TBF_RATE64])[0]
    return TokenBucket(name, rate, buffer, limit)


def add_ingress(name: str, index: int) -> Message:
    """Make the place for filters of what the link receives (answer: EEXIST where there is one)."""
    body = _TCMSG.pack(0, index, _INGRESS_HANDLE, _INGRESS, 0) + text(_KIND, "ingress")
    flags = NLM_F_CREATE | NLM_F_EXCL
    return Message(RTM_NEWQDISC, flags, body, ("add qdisc ingress to", name))


def add_redirect(name: str, index: int, target: int) -> Message:
    """Send all that the link receives by the link of index target instead."""
    mirred = attribute(_MIRRED_PARMS, _MIRRED.pack(_STOLEN, _EGRESS_REDIRECT, target))
    action = nested(1, text(_ACT_KIND, "mirred"), nested(_ACT_OPTIONS, mirred))
    options = nested(_OPTIONS, attribute(_U32_SEL, _EVERY_PACKET), nested(_U32_ACT, action))
    body = _TCMSG.pack(0, index, 0, _RECEIVED, _FIRST) + text(_KIND, "u32") + options
    flags = NLM_F_CREATE | NLM_F_EXCL
    return Message(RTM_NEWTFILTER, flags, body, ("redirect what is received by", name))


def delete_first_filters(name: str, index: int) -> Message:
    """Delete the filters in the place of the redirection (answer: ENOENT or EINVAL without any)."""
    body = _TCMSG.pack(0, index, 0, _RECEIVED, _FIRST)
    return Message(RTM_DELTFILTER, 0, body, ("delete the first filters of", name))


def list_filters(index: int) -> Message:
    """Ask for the filters of what the link receives (a dump)."""
    return Message(RTM_GETTFILTER, 0, _TCMSG.pack(0, index, 0, _RECEIVED, 0), "list filters")


def parse_redirect(message: Message) -> int | None:
    """The target's index (0: a link that is gone) of an RTM_NEWTFILTER answer.

    None where it is no redirection of all packets, or not in its place.
    """
    info = _TCMSG.unpack_from(message.body)[4]
    found = attributes(message.body, _TCMSG.size)
    options = attributes(found.get(_OPTIONS, b""))
    compared = options.get(_U32_SEL, b"")[_COMPARED]
    if info != _FIRST or found.get(_KIND) != b"u32\0" or compared != _EVERY_PACKET[_COMPARED]:
        return None
    action = attributes(attributes(options.get(_U32_ACT, b"")).get(1, b""))
    parms = attributes(action.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS)
    if string(action.get(_ACT_KIND, b"")) != "mirred" or parms is None:
        return None
    outcome, how, target = _MIRRED.unpack_from(parms)
    return int(target) if (outcome, how) == (_STOLEN, _EGRESS_REDIRECT) else None


def link_index(message: Message) -> int:
    """The link that a message is about."""
    return int(_TCMSG.unpack_from(message.body)[1])
