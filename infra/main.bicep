metadata name = 'Companion'
metadata description = 'Everything Companion runs on, in one subscription. `azd up` deploys it; so do dev.bicepparam and prod.bicepparam.'

targetScope = 'subscription'

import { database, issuer, logs, modelDeployment, scale } from 'types.bicep'

@description('Required. Name of the environment; resource group and names derive from it.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Required. Region that everything runs in, and that writes when there are two.')
@metadata({ azd: { type: 'location', usageName: ['OpenAI.GlobalStandard.gpt-5-mini,50'] } })
param location string

@description('Required. Key of the first caller, `owner`. azd makes one up and keeps it; the pipeline takes it from a secret.')
@secure()
@minLength(20)
@metadata({ azd: { type: 'generate', config: { length: 40, noSpecial: true } } })
param ownerKey string

@description('Optional. Second region: an app and models there too, Cosmos DB in both, Front Door over them. Empty: none.')
param secondRegion string = ''

@description('Optional. Tags on everything.')
param tags object = {}

@description('Optional. Models of Azure OpenAI; the first answers as `companion`. Empty: no account, see `modelServer`.')
param deployments modelDeployment[] = [
  { name: 'gpt-5-mini', model: 'gpt-5-mini', version: '2025-08-07', sku: 'GlobalStandard', capacity: 50 }
  { name: 'text-embedding-3-small', model: 'text-embedding-3-small', version: '1', sku: 'GlobalStandard', capacity: 50 }
]

@description('Optional. Content filter: `Default` judges before text is shown, `Asynchronous_filter` beside it, which is faster.')
@allowed(['Default', 'Asynchronous_filter'])
param filterMode string = 'Default'

@description('Optional. Any OpenAI-compatible server, up to and including /v1; empty: none.')
param modelServer string = ''

@description('Optional. Key for that server.')
@secure()
param modelServerApiKey string = ''

@secure()
@description('Optional. Signs the tokens of guests, at least 32 characters. Default: empty, nobody is a guest.')
param guestSecret string = ''

@description('Optional. Where the app sends traces and metrics. Default: azure, to Application Insights.')
@allowed(['off', 'otlp', 'azure'])
param telemetry string = 'azure'

@description('Optional. Which model of that server `companion` is; empty: the first it lists.')
param modelServerModel string = ''

@description('Optional. What upstreams are spoken to in: chat completions, or responses.')
@allowed(['chat', 'responses'])
param modelApi string = 'chat'

@description('Optional. How the app scales.')
param size scale = { memoryMB: 2048, httpConcurrency: 32, alwaysReady: 0, maxInstances: 40 }

@description('Optional. How Cosmos DB is paid for and backed up.')
param cosmos database = { capacity: 'serverless', maxRu: 1000, backup: 'Continuous7Days' }

@description('Optional. How long logs stay and what they may cost.')
param keepLogs logs = { retentionDays: 30, dailyCapGb: 1 }

@description('Optional. Spread over availability zones.')
param zoneRedundant bool = false

@description('Optional. Stores and models are reached through private endpoints only.')
param privateNetwork bool = false

@description('Optional. Front Door with a firewall; two regions need one.')
@allowed(['none', 'standard', 'premium'])
param edge string = 'none'

@description('Optional. Requests a minute from one address that Front Door lets through.')
param requestsPerMinute int = 1000

@description('Optional. App Configuration for flags.')
@allowed(['none', 'free', 'standard'])
param flagStore string = 'none'

@description('Optional. Who issues the tokens of signed-in users.')
param signIn issuer?

@description('Optional. Origins of web pages that may call from a browser; the chat page itself needs none.')
param allowedOrigins string[] = []

@description('Optional. Where alerts go; empty: no alerts, and no budget.')
param alertEmails string[] = []

@description('Optional. Budget of a month, in the currency of the subscription; 0: none.')
@minValue(0)
param monthlyBudget int = 0

@description('Optional. First month of the budget.')
param budgetStart string = utcNow('yyyy-MM-01')

@description('Optional. Object id of a developer who may use data and models as the app may; empty: nobody.')
param developerId string = ''

@description('Optional. Keeps state and blobs from being deleted with the group.')
param deleteLock bool = false

@description('Optional. Settings that differ from what this template sets; names as in docs/reference/settings.md.')
@secure()
param settings object = {}

var token = uniqueString(subscription().id, environmentName, location)
var regions = empty(secondRegion) ? [location] : [location, secondRegion]
var ours = union(tags, { 'azd-env-name': environmentName })
var groupName = 'rg-${environmentName}'
var databaseName = 'companion'
var packageContainer = 'package'
var blobContainer = 'blobs'
// Where the host puts what failed five times must be there before it does.
var workQueues = ['turns', 'turns-poison', 'turns-low', 'turns-low-poison', 'jobs', 'jobs-poison']
var hasModels = !empty(deployments)
var modelName = deployments[?0].?name ?? modelServerModel
var hasEdge = edge != 'none' || length(regions) > 1
var hasFlags = flagStore != 'none'
var emails = filter(alertEmails, email => !empty(email))
var hasAlerts = !empty(emails)
var localCopies = zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS'
var farCopies = zoneRedundant ? 'Standard_RAGZRS' : 'Standard_RAGRS'

var zones = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  queue: 'privatelink.queue.${environment().suffixes.storage}'
  // The clouds' list of suffixes names neither of these.
  cosmos: 'privatelink.documents.azure.com'
  openai: 'privatelink.openai.azure.com'
  flags: 'privatelink.azconfig.io'
}

// One group for each region; what both share lives in the first.
resource groups 'Microsoft.Resources/resourceGroups@2025-04-01' = [
  for (region, i) in regions: {
    name: i == 0 ? groupName : '${groupName}-${region}'
    location: region
    tags: ours
  }
]

module identity 'modules/identity.bicep' = {
  name: 'identity'
  scope: groups[0]
  params: { name: 'id-${token}', location: location, tags: ours }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: groups[0]
  params: {
    token: token
    location: location
    tags: ours
    keep: keepLogs
    principalId: identity.outputs.principalId
  }
}

// What the Functions host needs in each region: the package, its leases, the queue.
module host 'modules/storage.bicep' = [
  for (region, i) in regions: {
    name: 'host-${i}'
    scope: groups[i]
    params: {
      name: 'st${token}${i}'
      location: region
      tags: ours
      redundancy: localCopies
      containers: [packageContainer]
      queues: workQueues
      hostsFunctions: true
      isPrivate: privateNetwork
      principalId: identity.outputs.principalId
      workspaceId: monitoring.outputs.workspaceId
    }
  }
]

// What users stored that is too large for a record.
module data 'modules/storage.bicep' = {
  name: 'data'
  scope: groups[0]
  params: {
    name: 'st${token}data'
    location: location
    tags: ours
    redundancy: length(regions) > 1 ? farCopies : localCopies
    containers: [blobContainer]
    softDeleteDays: 7
    isPrivate: privateNetwork
    deleteLock: deleteLock
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module state 'modules/cosmos.bicep' = {
  name: 'cosmos'
  scope: groups[0]
  params: {
    name: 'cosmos-${token}'
    databaseName: databaseName
    regions: regions
    tags: ours
    plan: cosmos
    zoneRedundant: zoneRedundant
    isPrivate: privateNetwork
    principalId: identity.outputs.principalId
    developerId: developerId
    deleteLock: deleteLock
    workspaceId: monitoring.outputs.workspaceId
  }
}

module models 'modules/openai.bicep' = [
  for (region, i) in regions: if (hasModels) {
    name: 'openai-${i}'
    scope: groups[i]
    params: {
      name: 'oai-${token}-${i}'
      location: region
      tags: ours
      deployments: deployments
      filterMode: filterMode
      isPrivate: privateNetwork
      principalId: identity.outputs.principalId
      developerId: developerId
      workspaceId: monitoring.outputs.workspaceId
    }
  }
]

module flags 'modules/appconfig.bicep' = if (hasFlags) {
  name: 'appconfig'
  scope: groups[0]
  params: {
    name: 'appcs-${token}'
    location: location
    tags: ours
    tier: flagStore == 'free' ? 'free' : 'standard'
    isPrivate: privateNetwork
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module network 'modules/network.bicep' = [
  for (region, i) in regions: if (privateNetwork) {
    name: 'network-${i}'
    scope: groups[i]
    params: {
      token: '${token}-${i}'
      location: region
      tags: ours
      addressPrefix: '10.${20 + i}.0.0/16'
      zones: map(items(zones), zone => zone.value)
    }
  }
]

module endpoints 'modules/endpoints.bicep' = [
  for (region, i) in regions: if (privateNetwork) {
    name: 'endpoints-${i}'
    scope: groups[i]
    params: {
      token: '${token}-${i}'
      location: region
      tags: ours
      subnetId: network[i]!.outputs.endpointSubnetId
      targets: concat(
        [
          { name: 'host-blob', resourceId: host[i].outputs.id, service: 'blob', zone: zones.blob }
          { name: 'host-queue', resourceId: host[i].outputs.id, service: 'queue', zone: zones.queue }
          { name: 'data-blob', resourceId: data.outputs.id, service: 'blob', zone: zones.blob }
          { name: 'cosmos', resourceId: state.outputs.id, service: 'Sql', zone: zones.cosmos }
        ],
        hasModels ? [{ name: 'openai', resourceId: models[i]!.outputs.id, service: 'account', zone: zones.openai }] : [],
        hasFlags
          ? [{ name: 'flags', resourceId: flags!.outputs.id, service: 'configurationStores', zone: zones.flags }]
          : []
      )
    }
  }
]

module door 'modules/edge.bicep' = if (hasEdge) {
  name: 'edge'
  scope: groups[0]
  params: {
    token: token
    tags: ours
    tier: edge == 'premium' ? 'premium' : 'standard'
    requestsPerMinute: requestsPerMinute
    workspaceId: monitoring.outputs.workspaceId
  }
}

// Every variable of shared/settings.py but those that are for a laptop only; a test compares the two.
var commonSettings = {
  COSMOS_ENDPOINT: state.outputs.endpoint
  COSMOS_DATABASE: state.outputs.database
  STORAGE_BLOB_ENDPOINT: data.outputs.blobEndpoint
  AZURE_CLIENT_ID: identity.outputs.clientId
  OPENAI_BASE_URL: modelServer
  OPENAI_API_KEY: modelServerApiKey
  OPENAI_MODEL: modelName
  OPENAI_API: modelApi
  COMPANION_API_KEYS: '${ownerKey}=owner'
  COMPANION_MODEL_TIMEOUT: '600'
  COMPANION_CONTEXT_WINDOW: '128000'
  COMPANION_DELTA_INTERVAL: '0.1'
  COMPANION_LEASE: '1.5'
  COMPANION_CONTEXT_TURNS: '40'
  COMPANION_CONTEXT_TOKENS: '96000'
  COMPANION_BACKGROUND_SLOTS: '4'
  COMPANION_TITLES: 'on'
  COMPANION_SYSTEM_PROMPT: 'off'
  COMPANION_GUARDRAILS: ''
  COMPANION_GUARDRAIL_ACTION: 'mask'
  COMPANION_ALLOWED_HOSTS: ''
  COMPANION_CONTENT_SAFETY: ''
  COMPANION_ROUTES: ''
  COMPANION_ROUTES_REFRESH: '20'
  COMPANION_CONCURRENCY: '512'
  COMPANION_PLANS: ''
  COMPANION_PRICES: ''
  COMPANION_UNDO_DAYS: '7'
  COMPANION_OPERATORS: ''
  COMPANION_OIDC_JWKS: ''
  COMPANION_GUESTS: 'off'
  COMPANION_GUEST_SECRET: guestSecret
  COMPANION_PLATFORM_AUTH: 'off'
  COMPANION_TELEMETRY: telemetry
  COMPANION_CORS_ORIGINS: ''
  COMPANION_HTTP_EXTENSION: 'starlette'
  COMPANION_MAX_BODY: '26214400'
  COMPANION_HEARTBEAT: '15'
}
var signInSettings = signIn == null
  ? {}
  : { COMPANION_OIDC_ISSUER: signIn!.issuer, COMPANION_OIDC_AUDIENCE: signIn!.audience }
var flagSettings = hasFlags ? { AZURE_APPCONFIG_ENDPOINT: flags!.outputs.endpoint } : {}

module apps 'modules/functions.bicep' = [
  for (region, i) in regions: {
    name: 'functions-${i}'
    scope: groups[i]
    params: {
      name: i == 0 ? 'func-${token}' : 'func-${token}-${i}'
      planName: 'plan-${token}-${i}'
      location: region
      // azd deploys to the one app that carries this tag; the pipeline to all of them.
      tags: i == 0 ? union(ours, { 'azd-service-name': 'api' }) : ours
      size: size
      zoneRedundant: zoneRedundant
      identityId: identity.outputs.id
      clientId: identity.outputs.clientId
      hostBlobEndpoint: host[i].outputs.blobEndpoint
      hostQueueEndpoint: host[i].outputs.queueEndpoint
      packageContainer: packageContainer
      insightsConnectionString: monitoring.outputs.insightsConnectionString
      subnetId: privateNetwork ? network[i]!.outputs.appSubnetId : ''
      frontDoorId: hasEdge ? door!.outputs.frontDoorId : ''
      allowedOrigins: allowedOrigins
      settings: union(
        commonSettings,
        signInSettings,
        flagSettings,
        {
          STORAGE_QUEUE_ENDPOINT: host[i].outputs.queueEndpoint
          AZURE_OPENAI_ENDPOINT: hasModels ? models[i]!.outputs.endpoint : ''
        },
        settings
      )
      workspaceId: monitoring.outputs.workspaceId
    }
    // The app starts as soon as it has its package: by then it must be able to reach what it needs.
    dependsOn: [endpoints]
  }
]

module routes 'modules/routes.bicep' = if (hasEdge) {
  name: 'routes'
  scope: groups[0]
  params: {
    profileName: door!.outputs.profileName
    endpointName: door!.outputs.endpointName
    hostNames: [for (region, i) in regions: apps[i].outputs.hostName]
  }
}

module alerts 'modules/alerts.bicep' = if (hasAlerts) {
  name: 'alerts'
  scope: groups[0]
  params: {
    location: location
    token: token
    tags: ours
    emails: emails
    workspaceId: monitoring.outputs.workspaceId
    cosmosId: state.outputs.id
    cosmosIsServerless: state.outputs.isServerless
    openaiIds: [for (region, i) in (hasModels ? regions : []): models[i]!.outputs.id]
    queueAccountIds: [for (region, i) in regions: host[i].outputs.id]
  }
}

module budget 'modules/budget.bicep' = if (hasAlerts && monthlyBudget > 0) {
  name: 'budget-${token}'
  params: {
    name: 'companion-${environmentName}'
    monthly: monthlyBudget
    start: budgetStart
    groups: [for (region, i) in regions: groups[i].name]
    emails: emails
    actionGroupId: alerts!.outputs.actionGroupId
  }
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  scope: groups[0]
  params: { location: location, tags: ours, insightsId: monitoring.outputs.insightsId }
}

var firstHost = hasEdge ? door!.outputs.hostName : apps[0].outputs.hostName

output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = groups[0].name
output BASE_URL string = 'https://${firstHost}/v1'
output FUNCTION_APPS string[] = [for (region, i) in regions: '${groups[i].name}/${apps[i].outputs.name}']
output FUNCTION_APP string = apps[0].outputs.name
output AZURE_CLIENT_ID string = identity.outputs.clientId
output COSMOS_ENDPOINT string = state.outputs.endpoint
output COSMOS_DATABASE string = state.outputs.database
output STORAGE_BLOB_ENDPOINT string = data.outputs.blobEndpoint
output STORAGE_QUEUE_ENDPOINT string = host[0].outputs.queueEndpoint
output AZURE_OPENAI_ENDPOINT string = hasModels ? models[0]!.outputs.endpoint : ''
output OPENAI_MODEL string = modelName
output AZURE_APPCONFIG_ENDPOINT string = hasFlags ? flags!.outputs.endpoint : ''
