# SPDX-License-Identifier: Apache-2.0
"""The tour behind `cline-transport demo`: real calls, real sockets, real spans.

It needs the extra `demo`; only `cline_transport.cli` imports it.
"""
