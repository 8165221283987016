// The tools that agents bring, as rows: names | arguments with their use | effects of the whole.
#include <algorithm>
#include <array>
#include <cctype>

#include "safety/paths.h"
#include "safety/tools.h"

namespace hearth::safety {
namespace {

struct Row {
  std::string_view names;      // separated by spaces
  std::string_view arguments;  // "name name:use name:use=language"; names before one use share it
  std::string_view effects = {};
  std::string_view command = {};
};

constexpr std::string_view path_names =
    "path file filename filepath absolutepath relativepath relativeworkspacepath targetfile notebookpath uri";
constexpr std::string_view edit_text =
    "content contents text filetext newstr newstring newtext newsource newcode replacement replace codeedit insertline inserttext data "
    "edits:content "
    "oldstr oldstring oldtext search instructions instruction explanation description replaceall expectedreplacements mode encoding line "
    "insertlinenumber "
    "viewrange celltype cellid editmode language:data";

// Families first, by the shape of the name; then names. What stands later wins among the shapes; a plain name wins over every shape.
constexpr std::array rows{
    // Shapes.
    Row{"*shell* *bash* *terminal* *powershell* *console *command* run*cmd* exec*cmd* *exec",
        "command cmd commands cmds commandline line script shell input code args argv arguments:shell cwd workdir workingdirectory "
        "workingdir directory folder dir:folder "
        "env environment:environment timeout timeoutms timeoutsecs description explanation background runinbackground isbackground "
        "blocking session sessionid id:data"},
    Row{"*python* *ipython* *jupyter* *notebookexec* *codeinterpreter* *runcode* *executecode* *execcode* *evalcode* *codeexec* *coderun*",
        "code source script program cell input text expression:code=python language lang runtime kernel:language command cmd:shell "
        "cwd workdir:folder timeout timeoutms description sessionid id:data"},
    Row{"*javascript* *nodejs* runjs* evaljs* executejs*",
        "code source script program expression input function:code=node timeout description:data"},
    Row{"*sql* *postgres*query* *mysql* *sqlite* *database*query* *bigquery* *snowflake* *clickhouse* *duckdb*",
        "sql query statement queries statements command q:sql params parameters database db limit timeout description:data", "query"},
    Row{"git?*",
        "cwd repopath repo repository path workdir directory projectpath:folder message commitmessage title body description:data *:words",
        "", "git"},
    Row{"kubectl?* k8s?* kubernetes?*", "command args:words manifest yaml content:content description:data *:words", "", "kubectl"},
    Row{"docker?*", "description:data *:words", "", "docker"},
    Row{"github?* gitlab?* gitea?* gitingest?* dockerhub?*", ""},

    // Shells.
    Row{"bash shell sh zsh terminal console localshell localshellcall shellcommand exec execcommand executecommand runcommand "
        "runterminalcmd runterminalcommand runinterminal "
        "executebash executeshell runshell runshellcommand runbash bashtool shelltool bashcommand unifiedexec containerexec sandboxexec "
        "processstart startprocess "
        "executeterminalcommand terminalexecute cmd powershell pwsh system subprocess spawn execute run computerbash",
        "command cmd commands cmds commandline script input chars code shellcommand bashcommand args argv arguments action:shell "
        "cwd workdir workingdirectory workingdir directory folder dir:folder env environment:environment "
        "timeout timeoutms timeoutsecs timeoutseconds yieldtimems maxoutputtokens description explanation justification background "
        "runinbackground isbackground requiresapproval "
        "withescalatedpermissions sandboxpermissions dangerouslydisablesandbox restart session sessionid id tty shell login name type "
        "status callid user:data"},
    Row{"writestdin sendinput sendkeys sendterminalinput writetoprocess interactwithprocess terminalinput",
        "chars input keys text command data:shell session sessionid pid id yieldtimems maxoutputtokens timeoutms:data"},
    Row{"killshell killbash killprocess bashoutput taskoutput readterminal getterminaloutput readprocessoutput listprocesses listsessions "
        "taskstop",
        "shellid bashid id sessionid taskid block timeout filter terminalid pid waitmsbeforeasync commandid outputpriority:data", "list"},

    // Files.
    Row{"read readfile viewfile view openfile getfile getfilecontents readtextfile readmediafile filereader readmultiplefiles "
        "readmanyfiles readfiles catfile cat loadfile "
        "fileread readnotebook readdocument readpdf head tail getfilecontent fileinfo getfileinfo stat filestat",
        "path paths file files filename filepath filepaths absolutepath relativepath relativeworkspacepath targetfile notebookpath uri "
        "include:read_path "
        "offset limit range lines startline endline startlineoneindexed endlineoneindexedinclusive shouldreadentirefile head tail pages "
        "encoding explanation description "
        "recursive exclude usedefaultexcludes viewrange:data"},
    Row{"glob ls list listdir listdirectory listfiles listdirectorywithsizes directorytree tree findfiles filesearch findbyname "
        "searchfiles filetree listallowedfolders "
        "listalloweddirectories listfolder readdirectory readdir",
        "path paths directory dir folder cwd directorypath relativeworkspacepath searchdirectory targetdirectory basepath root:list_path "
        "pattern patterns globpattern query regex excludepatterns exclude ignore recursive depth maxdepth explanation filepattern "
        "extensions type sortby limit "
        "casesensitive respectgitignore:data"},
    Row{"grep grepsearch search searchfilecontent ripgrep rg codebasesearch searchcode codesearch semanticsearch searchcontent searchtext "
        "findinfiles searchrepo usages symbols",
        "path paths directory dir folder directorypath searchpath searchdirectory file filepath:search_path "
        "pattern query regex regexp text q term keyword keywords search include glob exclude type outputmode headlimit multiline context "
        "contextlines filepattern includepattern "
        "excludepattern casesensitive explanation targetdirectories includes matchperline caseinsensitive i n a b c:data",
        "read"},
    Row{"write writefile createfile writetofile newfile savefile filewrite putfile touch writetextfile overwritefile savetofile "
        "createtextfile appendfile appendtofile "
        "createorupdatefile createorupdatefiles",
        "PATHS:write_path EDIT content contents text body data filetext filecontent codecontent:content append overwrite createdirs "
        "emptyfile explanation owner repo branch message sha:data"},
    Row{"edit editfile multiedit multieditfile strreplace replace replaceinfile searchreplace insert insertedit inserteditintofile "
        "editblock modifyfile updatefile applydiff "
        "fileedit smartedit editnotebook notebookedit insertcontent searchandreplace replacefilecontent multireplacefilecontent "
        "replacestringinfile multireplacestringinfile "
        "regexreplace editcell morphedit fastapply",
        "PATHS:write_path diff:content EDIT"},
    Row{"strreplaceeditor strreplacebasededittool strreplaceedittool texteditor texteditor20241022 texteditor20250124 texteditor20250429 "
        "texteditor20250728 editor fileeditor "
        "str_replace_editor viewcreateedit",
        "PATHS:write_path command operation action op:operation EDIT"},
    Row{"applypatch patch applyunifieddiff patchfile gitapply",
        "input patch patchtext patchcontent diff text content command:patch PATHS:write_path cwd workdir:folder "
        "explanation description:data"},
    Row{"deletefile removefile delete remove rm deletefiles deletedirectory removedirectory unlink trash rmdir rmtree removefolder "
        "deletefolder deletepath removepath",
        "path paths file files filename filepath filepaths directory dir folder targetfile directorypath target uri:remove_path "
        "explanation description recursive force reason:data"},
    Row{"movefile move rename renamefile mv movefiles movedirectory",
        "source src from oldpath sourcepath frompath old path:source_path destination dest dst to newpath target destinationpath topath "
        "new destpath targetpath:write_path overwrite explanation:data",
        "", "mv"},
    Row{"copyfile copy cp copyfiles copydirectory duplicatefile",
        "source src from sourcepath frompath oldpath path:source_path destination dest dst to newpath target destinationpath topath "
        "destpath "
        "targetpath:write_path overwrite explanation:data",
        "", "cp"},
    Row{"createdirectory mkdir makedirectory createfolder makedir newfolder createdir",
        "path paths directory dir folder dirpath directorypath name:write_path parents recursive explanation:data"},
    Row{"createsymlink symlink link createlink hardlink",
        "target source src from oldpath path:source_path link linkpath destination dest to newpath linkname:write_path", "", "ln -s"},
    Row{"downloadfile download savefromurl fetchtofile wget",
        "url uri source link href:url path file filename filepath destination dest output outputpath saveto savepath target:write_path",
        "fetch"},

    // Network.
    Row{"webfetch fetch fetchurl fetchwebpage readurl geturl urlfetch httpget openurl browse crawl scrape scrapeurl webscrape fetchhtml "
        "fetchmarkdown fetchtxt fetchjson "
        "curl http httprequest request makerequest apirequest sendrequest restcall apicall httppost httpput httpdelete httppatch "
        "postrequest graphqlrequest webrequest "
        "firecrawlscrape urlreader loadurl readwebpage fetchcontent readurlcontent viewwebdocument",
        "url urls uri href link endpoint address host website page:url method verb httpmethod:method body data json payload form postdata "
        "requestbody jsonbody formdata content params "
        "query variables:body file filepath upload attachment:attachment headers header timeout maxlength startindex raw prompt format "
        "followredirects auth cookies contenttype "
        "useragent selector waitfor formats onlymaincontent description explanation:data",
        "fetch"},
    Row{"websearch search_web googlesearch bravesearch bravewebsearch duckduckgosearch bingsearch tavilysearch exasearch internetsearch "
        "searxng searchweb searchinternet "
        "searchgoogle serpapi perplexitysearch newssearch imagesearch searchdocs searchdocumentation getlibrarydocs resolvelibraryid "
        "querydocs docssearch",
        "query q search searchterm term keywords queries text prompt count limit numresults maxresults offset alloweddomains "
        "blockeddomains country language freshness topic tokens "
        "libraryname context7compatiblelibraryid explanation:data",
        "fetch"},
    Row{"browsernavigate navigate goto openpage browseropen playwrightnavigate puppeteernavigate gotourl browsergoto visit visitpage "
        "newpage navigatepage browsertabnew opentab",
        "url uri href link address:url timeout waituntil tabid:data", "fetch"},
    Row{"browserevaluate evaluate evaluatescript playwrightevaluate puppeteerevaluate browserconsoleexec javascripttool executescript "
        "runscript browserruncode",
        "function script expression code javascript text js:code=browser element ref args tabid:data", "execute"},
    Row{"browserclick click browserhover hover browserpresskey presskey browserscroll scroll browserselectoption selectoption browserdrag "
        "drag browserresize browserback back "
        "browserforward browserwaitfor waitfor browsertabs browserclose playwrightclick puppeteerclick browsersnapshot snapshot "
        "browserscreenshot screenshot takescreenshot "
        "takesnapshot playwrightscreenshot puppeteerscreenshot readpage getpagetext",
        "*:data", "fetch"},
    Row{"browsertype type typetext browserfill fill fillform browserfillform playwrightfill puppeteerfill forminput", "*:data", "send"},
    Row{"browserfileupload fileupload uploadfile upload attachfile browseruploadfile setinputfiles uploadfiles sendfile sharefile s3upload "
        "putobject uploaddocument",
        "paths path files file filename filepath source src localpath:attachment url endpoint destination target bucket key to name "
        "element ref description:data",
        "send"},

    // Containers.
    Row{"createcontainer runcontainer startnewcontainer dockerrun", "description:data *:words", "", "docker run"},
    Row{"recreatecontainer", "description:data *:words", "", "docker run"},
    Row{"execincontainer dockerexec containerrun", "container containerid name workdir user tty:data command cmd args:shell", "execute"},
    Row{"execinpod podexec kubectlexec podsexec", "pod podname name namespace container context:data command cmd args:shell", "execute"},
    Row{"removecontainer stopcontainer restartcontainer removeimage removevolume removenetwork podsdelete deletepod", "*:data", "change"},

    Row{"computer computeruse desktop", "action coordinate startcoordinate scrolldirection scrollamount duration region:data", "execute"},

    // Databases.
    Row{"sql query executesql runsql execsql runquery executequery querydatabase dbquery sqlquery readquery writequery dbexecute "
        "postgresquery mysqlquery sqlitequery "
        "executestatement databasequery pgquery executereadonlyquery applymigration createtable",
        "sql query statement queries statements command q migration:sql params parameters values args database db connection schema limit "
        "timeout projectid name description "
        "explanation:data",
        "query"},
    Row{"listtables describetable getschema describeschema listdatabases showtables tableschema listcollections collectionschema "
        "listschemas explainquery",
        "*:data", "query"},
    Row{"dropcollection dropdatabase droptable deletemany deletecollection truncatetable deletedatabase flushall flushdb", "*:data",
        "database_destruction"},
    Row{"insertmany insertone updatemany updateone deleteone insertrow updaterow upsert", "*:data", "change"},

    // Messages and other people's services.
    Row{"sendemail sendmail email mail createdraft draftemail replyemail reply forwardemail sendmessage postmessage slackpostmessage "
        "slackreplytothread sendslackmessage message "
        "notify sendnotification notification sendsms sms sendtelegram tweet posttweet post publish sendchat chatpostmessage discordsend "
        "addreaction sendtouser",
        "attachments attachment files file filepath filepaths:attachment "
        "to cc bcc recipient recipients subject title body text message content html channel channelid threadts user userid phone from "
        "emoji timestamp type priority:data",
        "send"},
    Row{"createevent updateevent deleteevent createcalendarevent addevent schedulemeeting createissue updateissue closeissue createticket "
        "updateticket createpullrequest "
        "mergepullrequest updatepullrequest addcomment addissuecomment createcomment commentonissue createtask createpage updatepage "
        "createdocument updatedocument appendblock "
        "createreview pushfiles createbranch createrepository forkrepository createorder placeorder booking transfer payment",
        "*:data", "change"},

    // What only thinks, asks or plans.
    Row{"todowrite todoread todo updateplan updatetodos plan setplan think sequentialthinking thinking reasoning exitplanmode "
        "enterplanmode attemptcompletion finish finaltask done "
        "submit answer finalanswer respond askuser askfollowupquestion askuserquestion asktheuser requestuserinput updateprogress "
        "reportprogress notebook scratchpad note notes "
        "calculator calculate math convert currenttime gettime getcurrenttime now sleep wait taskcreate taskupdate tasklist taskget skill "
        "toolsearch switchmode setmode "
        "structuredoutput creatememory updatememory savememory addmemory deletememory searchmemory remember recall memorystore "
        "memorysearch creatememories createentities createrelations "
        "addobservations readgraph searchnodes opennodes deleteentities deleteobservations deleterelations writememory readmemory "
        "updatetodolist sendusermessage suggestions",
        "*:data", "compute"},
    Row{"task agent subagent spawnagent runagent delegate newtask dispatchagent launchagent runsubagent closeagent sendtoagent waitagent",
        "prompt description subagenttype task instructions message mode model agenttype agent name background runinbackground resume "
        "isolation todos id ids timeoutms items:data",
        "compute"},
    Row{"memory", "command:data path oldpath newpath filetext oldstr newstr insertline inserttext viewrange content:data", "compute"},

    // Calls within calls.
    Row{"usemcptool calltool mcpcall callmcptool invoketool executetool runtool batch parallel multitooluseparallel batchtool invoke "
        "callfunction toolcall tooluse",
        "*:call"},
};

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> out;
  std::size_t at = 0;
  while ((at = text.find_first_not_of(' ', at)) != std::string_view::npos) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end;
  }
  return out;
}

constexpr std::array<std::string_view, 22> uses{"shell",     "environment", "words",      "code",        "language",    "read_path",
                                                "list_path", "search_path", "write_path", "remove_path", "source_path", "content",
                                                "patch",     "operation",   "url",        "body",        "method",      "attachment",
                                                "sql",       "folder",      "call",       "data"};
static_assert(static_cast<std::size_t>(Use::data) + 1 == uses.size());

void add_arguments(std::string_view text, std::vector<ToolEntry::Argument>& out) {
  std::size_t first = out.size();
  for (auto word : split(text)) {
    if (word == "EDIT") {
      add_arguments(edit_text, out);
      first = out.size();
      continue;
    }
    if (word.starts_with("PATHS:")) {
      for (const auto name : split(path_names)) out.push_back({std::string(name), *use_from_name(word.substr(6)), {}});
      first = out.size();
      continue;
    }
    const auto colon = word.find(':');
    out.push_back({std::string(word.substr(0, colon)), Use::data, {}});
    if (colon == std::string_view::npos) continue;
    auto use = word.substr(colon + 1);
    std::string language;
    if (const auto equals = use.find('='); equals != std::string_view::npos) {
      language = use.substr(equals + 1);
      use = use.substr(0, equals);
    }
    for (; first < out.size(); ++first) {
      out[first].use = *use_from_name(use);
      out[first].language = language;
    }
  }
}

// "get_shell_output" reads: the shapes of shells and the like do not fit tools whose name begins so.
bool begins_with_reading(std::string_view own) {
  static constexpr std::array<std::string_view, 14> verbs{"get",   "list",  "search",  "find", "describe", "show", "lookup",
                                                          "count", "check", "explain", "is",   "has",      "help", "read"};
  std::string first;
  for (const char c : own) {
    if (c == '_' || c == '-' || (c >= 'A' && c <= 'Z' && !first.empty())) break;
    first += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return std::find(verbs.begin(), verbs.end(), first) != verbs.end();
}

bool is_service(std::string_view word) {
  static constexpr std::array<std::string_view, 34> services{
      "github", "gitlab",  "gitea",      "bitbucket", "jira",       "confluence", "slack",   "notion",  "linear",
      "asana",  "trello",  "discord",    "telegram",  "teams",      "gmail",      "outlook", "google",  "gdrive",
      "drive",  "browser", "playwright", "puppeteer", "chrome",     "sentry",     "zendesk", "hubspot", "airtable",
      "figma",  "stripe",  "shopify",    "fs",        "filesystem", "mongodb",    "redis"};
  const std::string plain = plain_name(word);
  return std::find(services.begin(), services.end(), plain) != services.end();
}

}  // namespace

std::string_view name(Use use) { return uses[static_cast<std::size_t>(use)]; }
std::optional<Use> use_from_name(std::string_view text) {
  const auto found = std::find(uses.begin(), uses.end(), text);
  if (found == uses.end()) return {};
  return static_cast<Use>(found - uses.begin());
}
std::vector<std::string_view> use_names() { return {uses.begin(), uses.end()}; }

std::string_view own_name(std::string_view tool) {
  for (const std::string_view mark : {"__", "/", ".", ":"}) {
    if (const auto at = tool.rfind(mark); at != std::string_view::npos && at + mark.size() < tool.size())
      tool = tool.substr(at + mark.size());
  }
  return tool;
}

std::string plain_name(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '_' || c == '-' || c == ' ' || c == '.' || c == '/' || c == ':') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return out;
}

ToolTable::ToolTable() {
  static const ToolTable built_in = [] {
    ToolTable table{std::vector<ToolEntry>{}};
    for (const auto& row : rows) {
      ToolEntry entry;
      add_arguments(row.arguments, entry.arguments);
      for (const auto effect : split(row.effects)) entry.effects.push_back(*effect_from_name(effect));
      entry.command = row.command;
      for (const auto tool : split(row.names)) {
        entry.name = tool;
        table.add(entry);
      }
    }
    table.built_in_ = table.entries_.size();
    return table;
  }();
  *this = built_in;
}

ToolTable::ToolTable(std::vector<ToolEntry> entries) : entries_(std::move(entries)) {}

void ToolTable::add(ToolEntry entry) {
  entry.name = plain_name(entry.name);
  for (auto& argument : entry.arguments) argument.name = plain_name(argument.name);
  const std::size_t index = entries_.size();
  if (entry.name.find_first_of("*?[") != std::string::npos) {
    globs_.push_back(index);
  } else {
    plain_[entry.name] = index;
  }
  entries_.push_back(std::move(entry));
}

const ToolEntry* ToolTable::find(std::string_view tool) const {
  const auto own = own_name(tool);
  const std::string whole = plain_name(tool), last = plain_name(own);
  std::size_t best = entries_.size();
  const auto better = [&](std::size_t index) { return best == entries_.size() || index > best; };
  for (const auto* text : {&whole, &last}) {
    if (const auto found = plain_.find(*text); found != plain_.end() && better(found->second)) best = found->second;
  }
  // "github_create_issue": the server stands before the name without a mark of its own.
  if (best == entries_.size()) {
    const auto end = own.find_first_of("_-");
    if (end != std::string_view::npos && is_service(own.substr(0, end))) {
      if (const auto found = plain_.find(plain_name(own.substr(end + 1))); found != plain_.end()) best = found->second;
    }
  }
  const bool reads = best == entries_.size() && begins_with_reading(own);
  for (auto it = globs_.rbegin(); it != globs_.rend() && better(*it); ++it) {
    const bool mine = *it >= built_in_;
    if (!mine && reads) break;
    if (glob_match(entries_[*it].name, last) || (mine && glob_match(entries_[*it].name, whole))) best = *it;
  }
  return best == entries_.size() ? nullptr : &entries_[best];
}

}  // namespace hearth::safety
