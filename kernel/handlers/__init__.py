"""A handler per system call: unpack, call the mechanism, build the reply. Nothing is decided here that the gate or the core decides.

A handler gets the system, the ticket and the request, and returns the reply; or keeps the ticket and returns `LATER`; or raises an error
of the table. By then the call is decoded, identified, authorised and charged.
"""

from collections.abc import Callable
from typing import Any

from kernos.syscalls.audit import ExportAudit, ReadAudit, VerifyAudit
from kernos.syscalls.call import Call
from kernos.syscalls.context import (
    AppendContext,
    CloseContext,
    DeleteContext,
    DropSnapshot,
    ExplainContext,
    ForkContext,
    GrantContext,
    LabelContext,
    ListContexts,
    OpenContext,
    PageOut,
    PinMessages,
    ReadContext,
    ReadHistory,
    Recall,
    RestoreContext,
    RollbackContext,
    SearchContexts,
    SnapshotContext,
    StatContext,
    UnpinMessages,
)
from kernos.syscalls.message import Receive, Send, Subscribe, Unsubscribe
from kernos.syscalls.model import CountTokens, Embed, Generate, ListModels, LoadModel, UnloadModel
from kernos.syscalls.policy import CheckPolicy, Enroll, GetPolicy
from kernos.syscalls.process import (
    Exit,
    GetUsage,
    Kill,
    Launch,
    ListProcesses,
    Nice,
    ReportCrash,
    SendSignal,
    SetLimits,
    Spawn,
    Wait,
)
from kernos.syscalls.store import (
    BeginUpload,
    DeleteFile,
    FinishUpload,
    GetFile,
    ListFiles,
    ListVersions,
    MoveFile,
    PutFile,
    RollbackFile,
    ShareFiles,
    UploadPart,
)
from kernos.syscalls.system import BackUp, Cancel, GetStatus, Ping, StopKernel
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool

from . import audit, context, message, model, policy, process, store, system, tool

HANDLERS: dict[type[Call[Any]], Callable[..., Any]] = {
    Spawn: process.spawn,
    ListProcesses: process.list_,
    Wait: process.wait,
    Exit: process.exit_,
    SendSignal: process.signal,
    Kill: process.kill,
    Nice: process.nice,
    GetUsage: process.usage,
    SetLimits: process.set_limits,
    Launch: process.launch,
    ReportCrash: process.report_crash,
    Generate: model.generate,
    Embed: model.embed,
    CountTokens: model.count,
    ListModels: model.list_,
    LoadModel: model.load,
    UnloadModel: model.unload,
    OpenContext: context.open_,
    AppendContext: context.append,
    ReadContext: context.read,
    ListContexts: context.list_,
    StatContext: context.stat,
    ForkContext: context.fork,
    SnapshotContext: context.snapshot,
    RestoreContext: context.restore,
    DropSnapshot: context.drop,
    RollbackContext: context.rollback,
    ReadHistory: context.history_,
    PinMessages: context.pin,
    UnpinMessages: context.unpin,
    PageOut: context.page_out,
    Recall: context.recall_,
    SearchContexts: context.search,
    ExplainContext: context.explain,
    LabelContext: context.label,
    GrantContext: context.grant,
    CloseContext: context.close,
    DeleteContext: context.delete,
    PutFile: store.put,
    GetFile: store.get,
    ListFiles: store.list_,
    DeleteFile: store.delete,
    MoveFile: store.move,
    ListVersions: store.history,
    RollbackFile: store.rollback,
    ShareFiles: store.share,
    BeginUpload: store.begin,
    UploadPart: store.part,
    FinishUpload: store.finish,
    Send: message.send,
    Receive: message.receive,
    Subscribe: message.subscribe,
    Unsubscribe: message.unsubscribe,
    ServeTool: tool.serve,
    AnswerTool: tool.answer,
    CallTool: tool.call,
    ListTools: tool.list_,
    GetPolicy: policy.status,
    CheckPolicy: policy.check,
    Enroll: policy.enroll,
    ReadAudit: audit.read,
    ExportAudit: audit.export,
    VerifyAudit: audit.verify,
    Ping: system.ping,
    GetStatus: system.status,
    Cancel: system.cancel,
    BackUp: system.backup,
    StopKernel: system.stop,
}
