metadata description = 'The shapes of the parameters, shared by main.bicep and the modules.'

@export()
@sealed()
@description('A model of Azure OpenAI under the name clients of that account use.')
type modelDeployment = {
  @description('Name of the deployment.')
  @minLength(2)
  @maxLength(64)
  name: string

  @description('Model, as `az cognitiveservices model list` shows it.')
  model: string

  @description('Its version.')
  version: string

  @description('Where it may compute: anywhere, in the data zone, or in the region.')
  sku: 'GlobalStandard' | 'DataZoneStandard' | 'Standard'

  @description('Quota, in thousands of tokens per minute.')
  @minValue(1)
  capacity: int
}

@export()
@sealed()
@description('How an instance is sized and how far the app may scale.')
type scale = {
  @description('Memory of an instance: 512 MB come with 0.25 core, 2048 with 1, 4096 with 2.')
  memoryMB: 512 | 2048 | 4096

  @description('Requests an instance answers at once. The default of the platform for Python would be 1.')
  @minValue(1)
  @maxValue(1000)
  httpConcurrency: int

  @description('Instances that are never stopped; they cost while idle and spare the first caller the cold start.')
  @minValue(0)
  alwaysReady: int

  @description('Instances at most. With the price of an instance, the ceiling of what an attack can cost.')
  @minValue(1)
  @maxValue(1000)
  maxInstances: int
}

@export()
@sealed()
@description('How Cosmos DB is paid for and backed up.')
type database = {
  @description('`serverless`: nothing while idle, one region. `autoscale`: a tenth of `maxRu` while idle, several regions.')
  capacity: 'serverless' | 'autoscale'

  @description('Request units per second of each container, at most. Of no use when serverless.')
  @minValue(1000)
  maxRu: int

  @description('How far back the account can be restored to any second.')
  backup: 'Continuous7Days' | 'Continuous30Days'
}

@export()
@sealed()
@description('Where logs and metrics go and what they may cost.')
type logs = {
  @description('Days until they are deleted.')
  @minValue(30)
  @maxValue(730)
  retentionDays: int

  @description('Gigabytes a day, at most; what comes after is dropped until midnight.')
  @minValue(1)
  dailyCapGb: int
}

@export()
@sealed()
@description('Who issues the tokens of signed-in users: Entra External ID or any other OIDC issuer.')
type issuer = {
  @description('Exactly as in the token, for example https://TENANT.ciamlogin.com/TENANT_ID/v2.0')
  issuer: string

  @description('The API as the token names it: its application id.')
  audience: string
}

@export()
@sealed()
@description('A private endpoint to make: of which resource, which of its services, in which DNS zone.')
type endpoint = {
  @description('Short name, for the name of the endpoint.')
  name: string

  @description('The resource.')
  resourceId: string

  @description('Its service: blob, queue, Sql, account, configurationStores.')
  service: string

  @description('The zone that resolves it, privatelink.…')
  zone: string
}
